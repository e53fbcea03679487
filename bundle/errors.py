"""User errors, reported in one sentence."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path
from types import TracebackType

__all__ = ["InputError", "check_gzip", "explain", "find_input_error", "print_input_errors_as_sentences"]

# A gzip file of a few megabytes can unpack to terabytes; the largest supported image is smaller than this.
_MOST_READ_MIB = 4096

# Messages of MONAI and nibabel for a file that is not an image.
_UNREADABLE = ("cannot find a suitable reader", "Cannot work out file type")


class InputError(ValueError):
    """Bad input. The message says in one sentence which file is wrong, why, and what is expected."""


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and its causes, outermost first."""
    errors: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in errors:
        errors.append(current)
        current = current.__cause__ or current.__context__
    return errors


def find_input_error(error: BaseException) -> InputError | None:
    """Return the :class:`InputError` among an error and its causes, which MONAI and ignite wrap, or None."""
    return next((cause for cause in _chain(error) if isinstance(cause, InputError)), None)


def check_gzip(file: str | Path) -> None:
    """Read a gzip file up to its checksum, which image readers do not reach: they return damaged voxels.

    Args:
        file: any file; files that do not end in ``.gz`` or ``.mgz`` are not read.

    Raises:
        InputError: if it is damaged, or unpacks to more than 4 GiB.
        OSError: if it cannot be opened or read.
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
    """Return one sentence on why a file could not be used, from an error of a reader or a transform.

    Args:
        file: the file that was read.
        error: the error; its causes, which MONAI wraps, are searched.
    """
    if (found := find_input_error(error)) is not None:
        return str(found)
    chain = _chain(error)
    if not Path(file).exists():
        return f"{file} does not exist."
    # nibabel and MONAI's readers turn a decompression error into text, so the file itself is checked.
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
    """Print the sentence of an :class:`InputError`, instead of a traceback, if it ends the program uncaught.

    Programs that run configs call this first. The exit code is still 1; other errors keep their traceback.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if (found := find_input_error(error)) is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"Error: {found}", file=sys.stderr)

    sys.excepthook = hook
