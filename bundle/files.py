"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_atomically"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name to write to, which takes the place of ``path`` when the block ends well and is removed when it does not.

    Args:
        path: the file; its folder is made. The name keeps its suffixes and is hidden.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
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
        unfinished.write_text(text)
