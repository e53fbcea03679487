"""Search for DICOM files, without the packages that read them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from bundle.errors import InputError
from bundle.files import IMAGE_SUFFIXES, files_below

__all__ = ["check_installed", "find_dicom_files"]

_PREAMBLE = 128
_MAGIC = b"DICM"
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


def _is_dicom(file: Path) -> bool:
    """Return whether a file has DICOM's magic bytes; the files of a CD have no suffix."""
    try:
        if not file.is_file():  # opening a pipe would block
            return False
        with file.open("rb") as stream:
            return stream.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC
    except OSError:
        return False


def find_dicom_files(source: str | Path, output: str | Path) -> list[Path]:
    """Return the DICOM files of a folder and its subfolders, sorted by path, or the source if it is a DICOM file.

    Args:
        source: a file or a folder. Of a BIDS dataset only the images are used, not its source data: it has none.
        output: the folder of the results, which is not searched.
    """
    path, outside = Path(os.path.normpath(Path(source).absolute())), Path(output).resolve()
    if path.is_file():
        return [path] if _is_dicom(path) else []
    if not path.is_dir() or (path / "dataset_description.json").exists():
        return []
    others = (file for file in files_below(path, outside) if not file.name.lower().endswith(IMAGE_SUFFIXES))
    return [file for file in others if _is_dicom(file)]
