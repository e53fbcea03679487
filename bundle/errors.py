"""User errors, reported in one sentence."""

from __future__ import annotations

import gzip
import stat
import sys
import zlib
from pathlib import Path
from types import TracebackType

__all__ = [
    "InputError",
    "check_gzip",
    "explain",
    "find_input_error",
    "missing_content",
    "print_input_errors_as_sentences",
]

# A gzip file of a few megabytes can unpack to terabytes; the largest supported image is smaller than this.
_MOST_READ_MIB = 4096

_GZIP, _NIFTI = b"\x1f\x8b", b"n+1\0"
_ANNEXED = "fetch it with `datalad get`, or `git annex get`."

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


def _beginning(file: str | Path) -> bytes:
    """Return the first bytes of a regular file; none of a folder that can be listed, or of a pipe."""
    mode = Path(file).stat().st_mode
    if stat.S_ISDIR(mode):
        next(Path(file).iterdir(), None)
    if not stat.S_ISREG(mode):
        return b""
    with Path(file).open("rb") as stream:
        return stream.read(400)


def missing_content(file: str | Path) -> str:
    """Return a sentence on why a file's content is not there, and how to get it; an empty text if it is.

    Args:
        file: a file or a folder, which need not exist.
    """
    try:
        begin = _beginning(file)
    except PermissionError:
        return f"{file} cannot be read: give this user read permission."
    except ValueError:  # a null character
        return f"{str(file)!r} is not the name of a file."
    except OSError as error:
        if not Path(file).is_symlink():
            absent = isinstance(error, FileNotFoundError | NotADirectoryError)
            return f"{file} does not exist." if absent else f"{file} could not be read: {error.strerror or error}"
        target = Path(file).readlink()
        if "annex/objects" in str(target):
            return f"{file} is a link of git-annex whose content is not here: {_ANNEXED}"
        return f"{file} is a link to {target}, which does not exist: mend the link, or copy the file itself."
    if begin.startswith(b"version https://git-lfs"):
        return f"{file} is a pointer of git LFS, not the file itself: fetch it with `git lfs pull`."
    if begin.startswith(b"/annex/objects/"):
        return f"{file} is a pointer of git-annex, not the file itself: {_ANNEXED}"
    if begin.startswith(b"PK\3\4") and not str(file).endswith((".pt", ".zip")):  # torch's weights are archives too
        return f"{file} is a ZIP archive: unpack it."
    if begin.lstrip().lower().startswith((b"<html", b"<!doctype html")):
        return f"{file} is a web page: download the file itself, signed in if need be."
    return ""


def _damage(file: str | Path, damage: Exception) -> str:
    """Return the sentence on a file that is not, or not wholly, what gzip writes."""
    begin = _beginning(file)
    if begin.startswith(_GZIP):
        return f"{file} is a damaged gzip file ({damage}): copy or export it again."
    never = f"{file} is not compressed by gzip, although its name says so:"
    if _NIFTI in begin[344:348]:
        return f"{never} rename it to {Path(file).name[:-3]}."
    return f"{never} copy or export it again."


def _not_an_image(file: Path) -> str:
    """Return the sentence on something else in the place of an image file."""
    if file.is_dir():
        return f"{file} is a folder, not an image file: give a folder, of images or of DICOM, to the command itself."
    if _beginning(file)[128:].startswith(b"DICM"):
        return f"{file} is a DICOM file: give the folder of its series itself, {file.parent}."
    return f"{file} is not an image that can be read: NIfTI (.nii, .nii.gz) or MGH (.mgz) is expected."


def check_gzip(file: str | Path) -> None:
    """Read a gzip file up to its checksum, which image readers do not reach: they return damaged voxels.

    Args:
        file: any file; files that do not end in ``.gz`` or ``.mgz`` are not read.

    Raises:
        InputError: if it is damaged, never was gzip, or unpacks to more than 4 GiB.
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
        raise InputError(missing_content(file) or _damage(file, damage)) from damage
    raise InputError(f"{file} unpacks to more than {_MOST_READ_MIB // 1024} GiB: one 3D T1w volume is expected.")


def explain(file: str | Path, error: BaseException, *others: str | Path) -> str:
    """Return one sentence on why a file could not be used, from an error of a reader or a transform.

    Args:
        file: the file that was read.
        error: the error; its causes, which MONAI wraps, are searched.
        others: files that were read with it, such as an image's label, one of which may be at fault.
    """
    if (found := find_input_error(error)) is not None:
        return str(found)
    chain = _chain(error)
    for other in others:
        if any(str(other) in str(cause) for cause in chain):
            file = other
    for each in (file, *others):
        if sentence := missing_content(each):
            return sentence
    # nibabel and MONAI's readers turn a decompression error into text, so the file itself is checked.
    for each in (file, *others):
        try:
            check_gzip(each)
        except InputError as damage:
            return str(damage)
        except OSError as refusal:
            return f"{each} could not be read: {refusal.strerror or refusal}"
    if any(unreadable in str(cause) for cause in chain for unreadable in _UNREADABLE):
        return _not_an_image(Path(file))
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
