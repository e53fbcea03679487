"""What a user names in place of a folder of volumes: a list of paths, or a pattern."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from bundle.errors import InputError, missing_content

__all__ = ["LISTS", "folders_left_out", "is_pattern", "matching_files", "paths_in_list"]

LISTS = (".txt", ".csv", ".tsv")
"""Suffixes of lists of paths."""

_COLUMNS = ("image", "file", "path", "filename")
_WILD = re.compile(r"[*?\[]")


def paths_in_list(file: Path) -> list[Path]:
    """Return the paths in a list, relative to its folder: one a line in a text file, those of a column in a table.

    Raises:
        InputError: if it cannot be read, or is a table without a column of paths.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = missing_content(file) or f"{file} is not a text file of paths in UTF-8: {error}."
        raise InputError(reason) from error
    if file.suffix.lower() == ".txt":
        entries = [line.strip() for line in text.splitlines()]
    else:
        header = text.partition("\n")[0]  # Excel separates by what the computer's language has
        table = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count))
        column = next((name for name in table.fieldnames or () if name.strip().lower() in _COLUMNS), None)
        if column is None:
            raise InputError(f"{file} has no column of paths: one called {', '.join(_COLUMNS)} is expected.")
        entries = [(row[column] or "").strip() for row in table]
    return [file.parent / entry for entry in entries if entry]


def is_pattern(source: str | Path) -> bool:
    """Return whether a source that does not exist is a pattern."""
    return bool(_WILD.search(str(source)))


def _is_result(file: Path, output: Path) -> bool:
    """Return whether a file is a result of ours, by its folder and name."""
    return "_label-L_desc-" in file.name and file.resolve().is_relative_to(output)


def _matches(pattern: str, outside: Path) -> tuple[list[Path], list[Path], Path]:
    """Return the files that match, the folders that match and hold none of these, and that before the wildcards."""
    base = next(folder for folder in Path(pattern).parents if not _WILD.search(str(folder)))
    found = sorted(base.glob(str(Path(pattern).relative_to(base))))
    files = [file for file in found if not file.is_dir() and not _is_result(file, outside)]
    searched = {folder for file in files for folder in file.parents}
    folders = [each for each in found if each.is_dir() and each not in searched and not each.name.startswith(".")]
    return files, [each for each in folders if not each.resolve().is_relative_to(outside)], base


def matching_files(pattern: str, outside: Path) -> tuple[list[Path], Path]:
    """Return the files that match, sorted, and the folder of the pattern before its first wildcard.

    Raises:
        InputError: if nothing but folders match.
    """
    files, folders, base = _matches(pattern, outside)
    if folders and not files:
        raise InputError(
            f"{pattern} matches folders such as {folders[0]}, and no file: give a folder itself; {base} is searched "
            "with its subfolders."
        )
    return files, base


def folders_left_out(source: str | Path, output: str | Path) -> list[str]:
    """Return a line on the folders that match a pattern, of which only files are volumes, if there are any.

    Args:
        source, output: those of :func:`find_volumes`.
    """
    if Path(source).exists() or not is_pattern(source):
        return []
    _, folders, base = _matches(str(source), Path(output).resolve())
    left = f"{source}: left out: {len(folders)} folders that match, such as"
    return [f"{left} {folders[0]}: give a folder itself; {base} is searched with its subfolders"] if folders else []
