"""Files and functions are short enough to be read in one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from bundle.files import bundle_root

_FILES = [file for folder in ("bundle", "scripts") for file in sorted((Path(bundle_root()) / folder).rglob("*.py"))]


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def statements(function: ast.FunctionDef) -> int:
    """Return the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_file_has_more_than_300_lines() -> None:
    assert [file.name for file in _FILES if len(file.read_text(encoding="utf-8").splitlines()) > 300] == []


def test_no_function_has_more_than_40_lines_besides_signature_and_docstring() -> None:
    assert [f"{file.name}: {one.name}" for file in _FILES for one in functions(file) if statements(one) > 40] == []
