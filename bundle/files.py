"""Finding files, and writing them whole or not at all."""

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
"""The image files that are read: NIfTI and MGH."""


def bundle_root() -> str:
    """Return the folder that holds ``configs/``, ``models/`` and the package, from wherever a config is run."""
    return str(Path(__file__).resolve().parents[1])


def stem(path: str | Path) -> str:
    """Return a file's name without its image suffix, ``.nii.gz`` included."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), name)


def files_below(folder: Path, outside: Path | None = None) -> Iterator[Path]:
    """Find the files in a folder and its subfolders, sorted by name; links are followed, but not in circles.

    Hidden files and folders are left out, and so is ``__MACOSX``: macOS leaves ``._scan.nii.gz`` beside
    ``scan.nii.gz``.

    Args:
        folder: where to begin.
        outside: a folder that is not searched, because results are written there.

    Yields:
        paths that begin with ``folder``; a link that leads nowhere is one of them.
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
    """Find the images among :func:`files_below`, by their suffixes."""
    return (file for file in files_below(folder, outside) if file.name.lower().endswith(IMAGE_SUFFIXES))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a name to write to, which replaces ``path`` if the block succeeds and is removed if it does not.

    Args:
        path: the file; its folder is made. The name keeps its suffixes and is hidden.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number: on machines that share the folder two may have the same.
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
        path: the file; its folder is made.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file.

    Args:
        content: what it says.
        path: the file; its folder is made.
    """
    write_atomically(json.dumps(content, indent=1) + "\n", path)


def remove_unfinished(path: str | Path) -> None:
    """Remove what a killed process left of ``path`` while writing it.

    Args:
        path: a file that no process is writing.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".*.{escape(target.name)}"):
        if leftover.name.split(".")[1].isdecimal():
            leftover.unlink(missing_ok=True)
