"""What the tests of the package share: the packaged copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle import bundle_root
from scripts.package import write_package

ROOT = Path(bundle_root())


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder and the zip of this repository."""
    return write_package(ROOT, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def packaged(package: tuple[Path, Path]) -> Path:
    """The folder."""
    return package[0]
