"""Errors that a user causes and can mend, and the one sentence that says so."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path
from types import TracebackType

__all__ = ["InputError", "check_gzip", "explain", "find_input_error", "print_input_errors_as_sentences"]

# A gzip file of a few megabytes can unpack to terabytes; the largest image that is read has less than this.
_MOST_READ_MIB = 4096

# What MONAI and nibabel say of a file that is no image.
_UNREADABLE = ("cannot find a suitable reader", "Cannot work out file type")


class InputError(ValueError):
    """Bad input. The message names the file, what is wrong with it and what would be right, in one sentence."""


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, outermost first."""
    errors: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in errors:
        errors.append(current)
        current = current.__cause__ or current.__context__
    return errors


def find_input_error(error: BaseException) -> InputError | None:
    """The :class:`InputError` that an error is or goes back to, through what MONAI and ignite wrap around it."""
    return next((cause for cause in _chain(error) if isinstance(cause, InputError)), None)


def check_gzip(file: str | Path) -> None:
    """Reads a gzip file to its end, where its checksum is: readers of images stop before, and take damage for voxels.

    Args:
        file: any file; one that does not end in ``.gz`` or ``.mgz`` passes.

    Raises:
        InputError: when it is damaged, or unpacks to more than 4 GiB.
        OSError: when it cannot be opened or read.
    """
    if Path(file).suffix.lower() not in (".gz", ".mgz"):
        return
    try:
        with gzip.open(file) as stream:
            for _ in range(_MOST_READ_MIB):
                if not stream.read(1 << 20):
                    return
    except (gzip.BadGzipFile, EOFError, zlib.error) as damage:
        raise InputError(f"{file} is a damaged gzip file ({damage}): copy or export it again.") from damage
    raise InputError(f"{file} unpacks to more than {_MOST_READ_MIB // 1024} GiB: one 3D T1w volume is expected.")


def explain(file: str | Path, error: BaseException) -> str:
    """One sentence on why a file could not be used, from an error that a reader or a transform raised.

    Args:
        file: the file at hand.
        error: what was raised; MONAI wraps the causes, which are looked through.
    """
    if (told := find_input_error(error)) is not None:
        return str(told)
    chain = _chain(error)
    if not Path(file).exists():
        return f"{file} does not exist."
    # nibabel and MONAI's readers turn a decompression error into text, so the file itself is asked.
    try:
        check_gzip(file)
    except InputError as damage:
        return str(damage)
    except OSError as refusal:
        return f"{file} could not be read: {refusal.strerror or refusal}"
    if any(unreadable in str(cause) for cause in chain for unreadable in _UNREADABLE):
        return f"{file} is not an image that can be read: NIfTI (.nii, .nii.gz) or MGH (.mgz) is expected."
    reason = " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__
    return f"{file} could not be processed: {reason}"


def print_input_errors_as_sentences() -> None:
    """From now on an uncaught error that goes back to an :class:`InputError` ends the program with its sentence.

    Programs that run configs call this first; exit code 1 stays. Every other error keeps its traceback.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if (told := find_input_error(error)) is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"Error: {told}", file=sys.stderr)

    sys.excepthook = hook
