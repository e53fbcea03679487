"""Fixtures of the DICOM tests: the real series at a quarter of its resolution."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Without the packages all but the tests of their absence would fail to be collected.
_WITHOUT_PACKAGES = ("test_files.py",)
if find_spec("highdicom") is None:
    collect_ignore = [
        file.name for file in Path(__file__).parent.glob("test_*.py") if file.name not in _WITHOUT_PACKAGES
    ]


@pytest.fixture(scope="session")
def _thinned(real_series: Path) -> list[Dataset]:
    from tests.dicom.scans import thin

    return thin(real_series)


@pytest.fixture
def head_series(_thinned: list[Dataset]) -> list[Dataset]:
    """Every fourth slice, row and column of it: 48 slices of 64 x 64, 3.4 x 3.4 x 3.6 mm; a copy for each test."""
    from copy import deepcopy

    return deepcopy(_thinned)
