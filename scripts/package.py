"""The bundle as the Model Zoo takes it, a folder and its zip: ``python -m scripts.package OUTPUT``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from bundle.errors import InputError
from bundle.files import bundle_root, replacing
from scripts.command import run_command

__all__ = ["NAME", "package", "write_package"]

NAME = "stroke_lesion_t1w_segmentation"
"""Of the folder: MONAI Label takes the task from its last word."""

# Commands for inference and training, and what they import. What compares networks, repeats the thesis's tables or
# writes pages of this repository stays in it.
_COMMANDS = ("curve", "demo", "deploy", "dicom_receiver", "export", "picture", "prepare", "segment", "simulate")
_PARTS = (
    "LICENSE",
    "bundle/**/*.py",
    "bundle/transforms/mni152/*",
    "bundle/volumes/niivue/*",
    "bundle/volumes/templates/*",
    "configs/**/*.json",
    "configs/logging.conf",
    "docs/*.md",
    "docs/*.png",
    "docs/*.svg",
    "docs/data_license.txt",
    "models/model.json",
    "models/model.pt",
    "requirements.txt",
    "requirements/*.txt",
    "scripts/__init__.py",
    "scripts/command.py",
    *(f"scripts/{command}.py" for command in _COMMANDS),
)
_MIB = 1 << 20
_LARGEST_MIB = 25  # of a file in the Model Zoo's repository, by its CONTRIBUTING.md
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # where the time of a zip begins


def _find_files(root: Path) -> list[str]:
    """What belongs to the package, relative to the bundle's root, in the order of the names.

    Raises:
        InputError: when something is missing.
    """
    found: set[str] = set()
    for part in _PARTS:
        files = {file.relative_to(root).as_posix() for file in root.glob(part) if file.is_file()}
        if not files:
            raise InputError(f"{root / part} is missing: the package needs it.")
        found |= files
    return sorted(found)


def _read_version(root: Path) -> str:
    """The version, which the changelog must have.

    Raises:
        InputError: when it does not.
    """
    file = root / "configs" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    version: str = metadata["version"]
    if version not in metadata["changelog"]:
        raise InputError(f"{file} has version {version}, and no entry of that version in its changelog: add one.")
    return version


def _large_files(root: Path, files: Sequence[str], url: str | None) -> str | None:
    """The text of large_files.yml, None when no file is too large for the Model Zoo's repository.

    Raises:
        InputError: when there is one and no URL.
    """
    large = [file for file in files if (root / file).stat().st_size > _LARGEST_MIB * _MIB]
    if not large:
        return None
    if url is None:
        raise InputError(
            f"{root / large[0]} has more than {_LARGEST_MIB} MiB, the Model Zoo's limit: give the address that it "
            "will be downloaded from with --large_files_url."
        )
    lines = ["large_files:"]
    for file in large:
        lines += [
            f'  - path: "{file}"',
            f'    url: "{url.rstrip("/")}/{Path(file).name}"',
            f'    hash_val: "{hashlib.sha256((root / file).read_bytes()).hexdigest()}"',
            '    hash_type: "sha256"',
        ]
    return "\n".join(lines) + "\n"


def _check_replaceable(folder: Path, files: Sequence[str]) -> None:
    """An earlier package may be replaced, and nothing else.

    Raises:
        InputError: when the folder holds a file that the package does not have.
    """
    there = (file for file in sorted(folder.rglob("*")) if file.is_file() and "__pycache__" not in file.parts)
    for file in there:
        if file.relative_to(folder).as_posix() not in files:
            raise InputError(f"{file} is no part of the package and would be lost: move it, or choose another OUTPUT.")


def _write_folder(contents: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files aside, and then puts their folder in its place."""
    aside, before = (folder.with_name(f".{folder.name}.{what}") for what in ("unfinished", "before"))
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name, content in contents.items():
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if folder.exists():
            folder.rename(before)
        aside.rename(folder)
    finally:
        for leftover in (aside, before):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_zip(contents: Mapping[str, bytes], path: Path) -> None:
    """The same bytes for the same files: in the order of their names, with one time and one mode for all."""
    with replacing(path) as unfinished, ZipFile(unfinished, "w") as archive:
        for name, content in contents.items():
            entry = ZipInfo(f"{NAME}/{name}", _LONG_AGO)
            entry.compress_type = ZIP_DEFLATED
            entry.create_system = 3  # Unix, on which the mode depends
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, compresslevel=9)


def write_package(root: Path, output: Path, large_files_url: str | None = None) -> tuple[Path, Path]:
    """Writes the folder ``NAME`` and ``NAME_v<version>.zip``, each whole or not at all.

    Args:
        root: of the bundle.
        output: the folder to write them to; a package that is there is replaced.
        large_files_url: where files over 25 MiB will be downloaded from.

    Returns:
        the folder and the zip.

    Raises:
        InputError: when a file is missing, too large, or in the way.
    """
    files, version = _find_files(root), _read_version(root)
    large_files = _large_files(root, files, large_files_url)
    contents = {file: (root / file).read_bytes() for file in files}
    if large_files is not None:
        contents["large_files.yml"] = large_files.encode()
    contents = dict(sorted(contents.items()))
    folder, archive = output / NAME, output / f"{NAME}_v{version}.zip"
    _check_replaceable(folder, list(contents))
    _write_folder(contents, folder)
    _write_zip(contents, archive)
    return folder, archive


def package(output: str, large_files_url: str | None = None) -> None:
    """Writes OUTPUT/stroke_lesion_t1w_segmentation and OUTPUT/stroke_lesion_t1w_segmentation_v<version>.zip.

    They hold what runs inference, evaluation and training: configs, weights, code, documents and the licence. The same
    files give the same zip, byte for byte.

    Args:
        output: the folder to write to; a package that is there is replaced.
        large_files_url: the folder on the web that files over 25 MiB, which the Model Zoo's repository does not take,
            will be downloaded from. They are then listed in large_files.yml.
    """
    try:
        folder, archive = write_package(Path(bundle_root()), Path(output).resolve(), large_files_url)
    except OSError as error:
        raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    count = sum(file.is_file() for file in folder.rglob("*"))
    print(f"Folder: {folder}, {count} files\nZip:    {archive}, {archive.stat().st_size / _MIB:.1f} MiB")


if __name__ == "__main__":
    run_command(package)
