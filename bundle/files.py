"""Finding files, and writing them atomically."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from bundle.errors import InputError, missing_content

__all__ = [
    "IMAGE_SUFFIXES",
    "bundle_root",
    "check_readable",
    "files_below",
    "images_below",
    "read_json",
    "refuse_no_image",
    "remove_unfinished",
    "replacing",
    "stem",
    "write_atomically",
    "write_json",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
"""Suffixes of the supported image files: NIfTI and MGH."""

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_log = logging.getLogger(__name__)


def bundle_root() -> str:
    """Return the folder that holds ``configs/``, ``models/`` and the package, wherever a config is run."""
    return str(Path(__file__).resolve().parents[1])


def stem(path: str | Path) -> str:
    """Return a file's name without its image suffix, ``.nii.gz`` included."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), name)


def files_below(folder: Path, outside: Path | None = None) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, sorted by name; links are followed, but not in circles.

    Hidden files and folders are left out, and so is ``__MACOSX``: macOS leaves ``._scan.nii.gz`` beside
    ``scan.nii.gz``.

    Args:
        folder: the folder to search.
        outside: a folder that is not searched, because results are written to it.

    Yields:
        paths that begin with ``folder``, broken links and folders that cannot be read included.
    """
    entered: set[Path] = set()
    closed: list[OSError] = []
    excluded = None if outside is None else outside.resolve()
    for current, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        real = Path(current).resolve()
        if real in entered or (excluded is not None and real.is_relative_to(excluded)):
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(current, name) for name in sorted(files) if not name.startswith("."))
    yield from (Path(error.filename) for error in closed)


def _is_image(file: Path) -> bool:
    return file.name.lower().endswith(IMAGE_SUFFIXES)


def _is_closed(file: Path) -> bool:
    """Return whether a path of :func:`files_below` is a folder, which could not be read, or a link to none."""
    try:
        return file.is_dir() or (not file.suffix and file.is_symlink() and not file.exists())
    except OSError:
        return False


def images_below(folder: Path, outside: Path | None = None) -> list[Path]:
    """Return what is an image by its suffix in a folder and its subfolders; archives are named in a warning.

    What cannot be read is in it too, to fail with a sentence of its own: links to files that are not there, and folders
    that cannot be entered.
    """
    found = list(files_below(folder, outside))
    if archives := [file for file in found if file.name.lower().endswith(_ARCHIVES)]:
        _log.warning("Archives are not read; unpack them: %d, such as %s.", len(archives), archives[0])
    return [file for file in found if _is_image(file) or _is_closed(file)]


def check_readable(files: Sequence[Path]) -> None:
    """Check that what :func:`images_below` returns has no folder in it that could not be searched.

    Raises:
        InputError: with a sentence for each of them.
    """
    if closed := [missing_content(file) for file in files if not _is_image(file)]:
        raise InputError("\n".join(closed))


def refuse_no_image(source: str | Path, outside: str | Path | None, expected: str) -> InputError:
    """Return the error for a folder or a pattern in which no image was found.

    Args:
        source: what was searched.
        outside: the folder of the results, which is not searched.
        expected: what would have been found.
    """
    folder, results = Path(source), None if outside is None else Path(outside)
    if results is not None:
        if folder.resolve().is_relative_to(results.resolve()):
            return InputError(f"{source} lies in {results}, where results are written: write them to another folder.")
        inside = results.resolve().is_relative_to(folder.resolve())
        if inside and any(_is_image(file) for file in files_below(results)):
            return InputError(f"{source} holds images only in {results}, where results are written: choose another.")
    archives = [file for file in files_below(folder) if file.name.lower().endswith(_ARCHIVES)]
    if archives:
        return InputError(f"{source} holds no image, but {len(archives)} archives such as {archives[0]}: unpack them.")
    return InputError(f"{source} holds no image; expected: {expected}.")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` if the block succeeds, and is removed if it does not.

    Args:
        path: the file; its folder is created. The temporary name is hidden and keeps the suffixes.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Random, because process ids can be equal on machines that share the folder.
    unfinished = target.with_name(f".{secrets.randbelow(10**12)}.{target.name}")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(text: str, path: str | Path) -> None:
    """Write a text file in UTF-8.

    Args:
        text: its content; bytes of a file's name that are not UTF-8 are written as ``\\udcff``.
        path: the file; its folder is created.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def _as_json(content: Any) -> Any:
    """Return the content with null for numbers that JSON does not have: NaN and infinity."""
    if isinstance(content, Mapping):
        return {key: _as_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_json(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file, with null for NaN and infinity.

    Args:
        content: what ``json`` can write.
        path: the file; its folder is created.
    """
    write_atomically(json.dumps(_as_json(content), indent=1, allow_nan=False) + "\n", path)


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file in UTF-8 or UTF-16, with or without the mark of Windows programs before it.

    Raises:
        InputError: when it cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        reason = missing_content(path) or f"{path} is not JSON: {error}."
        raise InputError(reason) from error


def remove_unfinished(path: str | Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote ``path``.

    Args:
        path: a file that no process is writing now.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".*.{escape(target.name)}"):
        if leftover.name.split(".")[1].isdecimal():
            leftover.unlink(missing_ok=True)
