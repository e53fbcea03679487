"""Search for DICOM files, without the packages that read them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from bundle.errors import InputError
from bundle.files import IMAGE_SUFFIXES, files_below

__all__ = ["check_installed", "find_dicom_files", "left_out"]

_PREAMBLE = 128
_MAGIC = b"DICM"
# A file without preamble begins with one of the first elements of the standard: group 2 or 8, a low element, then its
# representation as two letters or, in implicit files, a short length.
_FIRST_GROUPS, _LAST_ELEMENT, _LONGEST = (2, 8), 0x18, 0x100
_PACKAGES = ("pydicom", "highdicom", "pynetdicom", "dcm2niix")


def check_installed() -> None:
    """Check that the packages that DICOM needs are installed.

    Raises:
        InputError: if one of them is not.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"DICOM needs packages that are not installed ({', '.join(missing)}): pip install -r requirements/dicom.txt"
        )


def _is_data_set(start: bytes) -> bool:
    """Return whether a file begins with an element of DICOM, of either byte order."""
    for order in ("little", "big"):
        group, element = int.from_bytes(start[:2], order), int.from_bytes(start[2:4], order)
        if group in _FIRST_GROUPS and element <= _LAST_ELEMENT:
            explicit = start[4:6].isalpha() and start[4:6].isupper()
            return explicit or 0 < int.from_bytes(start[4:8], order) <= _LONGEST
    return False


def _is_dicom(file: Path) -> bool:
    """Return whether a file has DICOM's magic bytes, or begins as DICOM without preamble; a CD's have no suffix.

    Raises:
        OSError: if it cannot be read, or is not a regular file.
    """
    if not file.is_file():  # opening a pipe would block
        raise FileNotFoundError(f"{file} is not a file.")
    with file.open("rb") as stream:
        start = stream.read(_PREAMBLE + len(_MAGIC))
    return start[_PREAMBLE:] == _MAGIC or _is_data_set(start)


def _kind(file: Path) -> str:
    """Return what a file is: ``"DICOM"``, or how it is called where it is left out."""
    try:
        return "DICOM" if _is_dicom(file) else f"not DICOM ({file.suffix.lower() or 'no suffix'})"
    except OSError:
        return "unreadable, or a link to nothing"


def find_dicom_files(source: str | Path, output: str | Path) -> list[Path]:
    """Return the DICOM files of a folder and its subfolders, sorted by path, or the source if it is a DICOM file.

    Args:
        source: a file or a folder. Of a BIDS dataset only the images are used, not its source data: it has none.
        output: the folder of the results, which is not searched.
    """
    path, outside = Path(os.path.normpath(Path(source).absolute())), Path(output).resolve()
    if path.is_file():
        return [path] if _kind(path) == "DICOM" else []
    if not path.is_dir() or (path / "dataset_description.json").exists():
        return []
    others = (file for file in files_below(path, outside) if not file.name.lower().endswith(IMAGE_SUFFIXES))
    return [file for file in others if _kind(file) == "DICOM"]


def left_out(source: str | Path, output: str | Path, used: Iterable[Path]) -> list[str]:
    """Return a line on what lies beside DICOM files and is neither DICOM nor an image, if there is anything.

    Args:
        source, output: those of :func:`find_dicom_files`.
        used: what it found.
    """
    path, found = Path(os.path.normpath(Path(source).absolute())), set(used)
    files = files_below(path, Path(output).resolve()) if path.is_dir() else ()
    others = (file for file in files if file not in found and not file.name.lower().endswith(IMAGE_SUFFIXES))
    counts = Counter(map(_kind, others))
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return [f"{source}: left out: {counts.total()} files: {kinds}"] if kinds else []
