"""The packages of the bundle import each other in one direction only, and importing the bundle is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from bundle.files import bundle_root

ROOT = Path(bundle_root())

UNKNOWN_TO = {
    "mni": {"networks", "losses", "transforms", "data", "volumes", "dicom", "segmenter"},
    **{
        component: {"data", "volumes", "dicom", "segmenter"}
        for component in ("networks", "losses", "metrics", "transforms", "inferers", "handlers")
    },
    "acceleration": {"volumes", "dicom", "segmenter"},  # integers are calibrated on simulated volumes
    "data": {"volumes", "dicom", "segmenter"},
    "volumes": {"dicom", "segmenter"},
    "dicom": {"segmenter"},
}
"""What each room of the bundle must not import, wherever in a module."""


def modules(root: Path) -> dict[str, Path]:
    """All modules of the bundle and the scripts, by name."""
    files = [file for folder in ("bundle", "scripts") for file in sorted((root / folder).rglob("*.py"))]
    names = (file.relative_to(root).with_suffix("").as_posix().replace("/", ".") for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imported(statement: ast.AST, package: str) -> Iterator[str]:
    """The names that a statement in a package imports, as deep as they may be modules."""
    if isinstance(statement, ast.Import):
        yield from (name.name for name in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        module = resolve_name("." * statement.level + (statement.module or ""), package)
        yield module
        yield from (f"{module}.{name.name}" for name in statement.names)


def at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run on import: none in a function, and none for type checkers alone."""
    for statement in ast.iter_child_nodes(tree):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        yield statement
        yield from at_module_level(statement)


def imports(root: Path, late: bool = True) -> dict[str, set[str]]:
    """The modules of the project that each module imports; a package whose names are imported is one of them.

    Args:
        root: the folder of the project.
        late: those in functions and for type checkers too.
    """
    known = modules(root)
    found: dict[str, set[str]] = {}
    for module, file in known.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        statements = ast.walk(tree) if late else at_module_level(tree)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        names = {name for statement in statements for name in imported(statement, package)}
        found[module] = (names & known.keys()) - {module}
    return found


def room(module: str) -> str:
    """``volumes`` of ``bundle.volumes.batch``, ``segmenter`` of ``bundle.segmenter``; ``scripts`` of all of them."""
    return "scripts" if module.startswith("scripts") else module.removeprefix("bundle").lstrip(".").split(".")[0]


def upward(root: Path) -> list[str]:
    """The imports from a room that must not know of the other."""
    return [
        f"{module} imports {other}"
        for module, others in imports(root).items()
        for other in sorted(others)
        if room(other) in UNKNOWN_TO.get(room(module), ()) or (room(other) == "scripts" != room(module))
    ]


def test_there_are_no_circular_imports() -> None:
    assert list(TopologicalSorter(imports(ROOT)).static_order())


def test_no_room_imports_one_above_it() -> None:
    assert upward(ROOT) == []


def test_acceleration_is_imported_late_only() -> None:
    found = [
        f"{module} imports {other}"
        for module, others in imports(ROOT, late=False).items()
        if room(module) not in ("acceleration", "scripts")
        for other in sorted(others)
        if room(other) == "acceleration"
    ]
    assert found == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"volumes/a.py": "def f():\n    import bundle.dicom.b\n", "dicom/b.py": ""}, "bundle.volumes.a"),
        ({"losses/a.py": "from bundle.data import b\n", "data/b.py": ""}, "bundle.losses.a imports bundle.data.b"),
        ({"losses/a.py": "from ..data import b\n", "data/b.py": ""}, "bundle.losses.a imports bundle.data.b"),
        ({"metrics/a.py": "from bundle.volumes import b\n", "volumes/b.py": ""}, "bundle.metrics.a imports bundle.v"),
        ({"files.py": "from scripts.run import f\n", "../scripts/run.py": ""}, "bundle.files imports scripts.run"),
    ],
)
def test_an_import_upward_is_found(changes: dict[str, str], fault: str, tmp_path: Path) -> None:
    for name, text in changes.items():
        file = (tmp_path / "bundle" / name).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (found,) = upward(tmp_path)
    assert found.startswith(fault)


def test_a_cycle_is_found_even_through_an_import_in_a_function(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "a.py").write_text("from bundle.b import f\n")
    (tmp_path / "bundle" / "b.py").write_text("def f():\n    from bundle import a\n")
    with pytest.raises(CycleError):
        list(TopologicalSorter(imports(tmp_path)).static_order())


@pytest.mark.parametrize("module", ["bundle", "bundle.mni", "bundle.headers", "bundle.early_registration"])
def test_importing_it_loads_neither_torch_nor_monai(module: str) -> None:
    program = f"import sys, {module}; print([name for name in ('torch', 'monai') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
