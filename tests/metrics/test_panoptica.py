"""Lesion F1 against panoptica, which needs an older NumPy than ours and so an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.metrics import lesion_f1
from tests.metrics.test_agreement import CASES, f1
from tests.workflows.conftest import ROOT

PYTHON = ROOT / ".venv-panoptica" / "bin" / "python"
PAIR = ("pred", "truth")


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Found, false and missed lesions of each case by panoptica."""
    assert PYTHON.exists(), "make test-panoptica makes its environment"
    file = tmp_path_factory.mktemp("cases") / "cases.npz"
    pairs = {
        f"{name}_{n}": mask for n, pair in enumerate(CASES.values()) for name, mask in zip(PAIR, pair, strict=True)
    }
    np.savez(file, **pairs)
    script = Path(__file__).with_name("panoptica_counts.py")
    told = subprocess.run([PYTHON, script, file], capture_output=True, text=True, check=True).stdout
    return dict(zip(CASES, json.loads(told.splitlines()[-1]), strict=True))


@pytest.mark.panoptica
@pytest.mark.parametrize("name", CASES)
def test_lesion_f1_by_iou_agrees_with_panoptica(name: str, counts: dict[str, list[int]]) -> None:
    found = lesion_f1(*(torch.from_numpy(mask) for mask in CASES[name]))["lesion_f1_iou25"]
    tp, fp, fn = counts[name]
    assert found == pytest.approx(f1(tp, fp, fn))
