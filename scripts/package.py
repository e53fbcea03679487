"""The bundle for the Model Zoo, as a folder and a zip: ``python -m scripts.package OUTPUT``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from bundle.errors import InputError
from bundle.files import bundle_root, replacing
from scripts.command import run_command

__all__ = ["NAME", "package", "write_package"]

NAME = "stroke_lesion_t1w_segmentation"
"""The name of the folder; MONAI Label takes the task from its last word."""

# Commands for inference and training. Those of the thesis and of this repository's own pages are left out.
_COMMANDS = (
    *("average", "curve", "demo", "deploy", "dicom_receiver", "export", "picture", "prepare", "quality", "segment"),
    "simulate",
)
_PARTS = (
    "LICENSE",
    "bundle/**/*.py",
    "bundle/mni/icbm152/*",
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
    *(f"requirements/{job}.txt" for job in ("deploy", "dicom", "label", "onnx", "openvino", "ray")),
    *(f"scripts/{module}.py" for module in ("__init__", "command", *_COMMANDS)),
)
_MIB = 1 << 20
_LARGEST_MIB = 25  # of a file in the Model Zoo's repository, by its CONTRIBUTING.md
_FIRST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def _find_files(root: Path) -> list[str]:
    """Return the files of the package, relative to the bundle's root, sorted by name.

    Raises:
        InputError: if one is missing.
    """
    found: set[str] = set()
    for part in _PARTS:
        files = {file.relative_to(root).as_posix() for file in root.glob(part) if file.is_file()}
        if not files:
            raise InputError(f"{root / part} is missing: the package needs it.")
        found |= files
    return sorted(found)


def _read_version(root: Path) -> str:
    """Return the version, which must be in the changelog.

    Raises:
        InputError: if it is not.
    """
    file = root / "configs" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    version: str = metadata["version"]
    if version not in metadata["changelog"]:
        raise InputError(f"{file} has version {version}, and no entry of that version in its changelog: add one.")
    return version


def _large_files(root: Path, files: Sequence[str], url: str | None) -> str:
    """Return the text of large_files.yml; empty if no file is too large for the Model Zoo's repository.

    Raises:
        InputError: if there is one and no URL.
    """
    large = [file for file in files if (root / file).stat().st_size > _LARGEST_MIB * _MIB]
    if not large:
        return ""
    if url is None:
        raise InputError(
            f"{root / large[0]} has more than {_LARGEST_MIB} MiB, the Model Zoo's limit: give the address that it "
            "will be downloaded from with --large_files_url."
        )
    entries = (
        f'  - path: "{file}"\n'
        f'    url: "{url.rstrip("/")}/{Path(file).name}"\n'
        f'    hash_val: "{hashlib.sha256((root / file).read_bytes()).hexdigest()}"\n'
        '    hash_type: "sha256"\n'
        for file in large
    )
    return "large_files:\n" + "".join(entries)


def _check_replaceable(folder: Path, files: Collection[str]) -> None:
    """Check that a folder holds nothing but an earlier package.

    Raises:
        InputError: if it holds a file that is not in the package.
    """
    for file in sorted(folder.rglob("*")):
        known = file.relative_to(folder).as_posix() in files or "__pycache__" in file.parts
        if file.is_file() and not known:
            raise InputError(f"{file} is not part of the package and would be lost: move it, or choose another OUTPUT.")


def _write_folder(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write the files aside, then replace the folder by theirs."""
    with suppress(FileExistsError):
        folder.parent.mkdir(parents=True)
    with TemporaryDirectory(prefix=".", dir=folder.parent) as name:
        aside = Path(name)
        for path, content in contents.items():
            file = aside / "new" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if folder.exists():
            folder.rename(aside / "old")
        (aside / "new").rename(folder)


def _write_zip(contents: Mapping[str, bytes], path: Path) -> None:
    """Write the same bytes for the same files: in the order given, with one time and one mode for all."""
    with replacing(path) as unfinished, ZipFile(unfinished, "w") as archive:
        for name, content in contents.items():
            entry = ZipInfo(f"{NAME}/{name}", _FIRST_ZIP_TIME)
            entry.compress_type = ZIP_DEFLATED
            entry.create_system = 3  # Unix, which gives the mode its meaning
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, compresslevel=9)


def write_package(root: Path, output: Path, large_files_url: str | None = None) -> tuple[Path, Path]:
    """Write the folder ``NAME`` and ``NAME_v<version>.zip``, each atomically.

    Args:
        root: of the bundle.
        output: the folder to write them to; an earlier package is replaced.
        large_files_url: where files over 25 MiB will be downloaded from.

    Returns:
        the folder and the zip.

    Raises:
        InputError: if a file is missing, too large, or would be lost.
    """
    files, version = _find_files(root), _read_version(root)
    contents = {file: (root / file).read_bytes() for file in files}
    if large_files := _large_files(root, files, large_files_url):
        contents["large_files.yml"] = large_files.encode()
    contents = dict(sorted(contents.items()))
    folder, archive = output / NAME, output / f"{NAME}_v{version}.zip"
    _check_replaceable(folder, contents.keys())
    _write_folder(contents, folder)
    _write_zip(contents, archive)
    return folder, archive


def package(output: str, large_files_url: str | None = None) -> None:
    """Write OUTPUT/stroke_lesion_t1w_segmentation and OUTPUT/stroke_lesion_t1w_segmentation_v<version>.zip.

    They hold configs, weights, code, documents and the licence, for inference, evaluation and training. The same files
    give the same zip, byte for byte.

    Args:
        output: the folder to write to; an earlier package is replaced.
        large_files_url: the web folder that files over 25 MiB, the limit of the Model Zoo's repository, will be
            downloaded from. They are then listed in large_files.yml.
    """
    try:
        folder, archive = write_package(Path(bundle_root()), Path(output).resolve(), large_files_url)
    except OSError as error:
        raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    count = sum(file.is_file() for file in folder.rglob("*"))
    print(f"Folder: {folder}, {count} files\nZip:    {archive}, {archive.stat().st_size / _MIB:.1f} MiB")


if __name__ == "__main__":
    run_command(package)
