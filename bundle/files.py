"""Files that are found, and files that are whole or not there."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

__all__ = ["bundle_root", "files_below", "remove_unfinished", "replacing", "write_atomically", "write_json"]


def bundle_root() -> str:
    """Return the folder that holds ``configs/``, ``models/`` and the package, from wherever a config is run."""
    return str(Path(__file__).resolve().parents[1])


def files_below(folder: Path, outside: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, in the order of their names; links are followed, but not in circles.

    Args:
        folder: where to begin.
        outside: a folder that is not searched, resolved.

    Yields:
        all but hidden ones: macOS leaves ``._scan.nii.gz`` beside ``scan.nii.gz``.
    """
    entered: set[Path] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = Path(current).resolve()
        if real in entered or real.is_relative_to(outside):
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        yield from (Path(current, name) for name in sorted(files) if not name.startswith("."))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name to write to, which takes the place of ``path`` when the block ends well and is removed when it does not.

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
    """Writes a text file.

    Args:
        text: its content.
        path: the file; its folder is made.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(content: Any, path: str | Path) -> None:
    """Writes a JSON file.

    Args:
        content: what it says.
        path: the file; its folder is made.
    """
    write_atomically(json.dumps(content, indent=1) + "\n", path)


def remove_unfinished(path: str | Path) -> None:
    """Removes what a process that was killed left of ``path`` while it wrote it.

    Args:
        path: the file that nothing writes at the moment.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".*.{escape(target.name)}"):
        if leftover.name.split(".")[1].isdecimal():
            leftover.unlink(missing_ok=True)
