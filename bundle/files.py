"""Finding files, and writing them atomically."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

__all__ = [
    "IMAGE_SUFFIXES",
    "bundle_root",
    "files_below",
    "images_below",
    "remove_unfinished",
    "replacing",
    "stem",
    "write_atomically",
    "write_json",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
"""Suffixes of the supported image files: NIfTI and MGH."""


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
        paths that begin with ``folder``, broken links included.
    """
    entered: set[Path] = set()
    excluded = None if outside is None else outside.resolve()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = Path(current).resolve()
        if real in entered or (excluded is not None and real.is_relative_to(excluded)):
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(current, name) for name in sorted(files) if not name.startswith("."))


def images_below(folder: Path, outside: Path | None = None) -> Iterator[Path]:
    """Yield the images of :func:`files_below`, by their suffixes."""
    return (file for file in files_below(folder, outside) if file.name.lower().endswith(IMAGE_SUFFIXES))


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
    """Write a text file.

    Args:
        text: its content.
        path: the file; its folder is created.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file.

    Args:
        content: what ``json`` can write.
        path: the file; its folder is created.
    """
    write_atomically(json.dumps(content, indent=1) + "\n", path)


def remove_unfinished(path: str | Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote ``path``.

    Args:
        path: a file that no process is writing now.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".*.{escape(target.name)}"):
        if leftover.name.split(".")[1].isdecimal():
            leftover.unlink(missing_ok=True)
