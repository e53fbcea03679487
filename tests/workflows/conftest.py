"""Fixtures of the workflow tests: a small simulated cohort, a small network, the commands as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.data.simulate import Head, simulate_case
from bundle.files import bundle_root
from bundle.mni import atlas_grid
from bundle.networks import TSRLNet

ROOT = Path(bundle_root())
CONFIGS = ROOT / "configs"
FEATURES = (8, 16, 16, 32, 32)
COARSE = {"space": "native", "spacing_mm": 2.0, "network_def::features": list(FEATURES)}
"""Overrides that make a workflow quick: no registration, a 2 mm grid and a thin network."""

Run = Callable[..., subprocess.CompletedProcess]


def command(run_id: str | None, *configs: str, **overrides: object) -> list[str]:
    """``python -m monai.bundle run ...`` with configs by name and overrides."""
    files = [str(CONFIGS / name) for name in configs]
    words = [sys.executable, "-m", "monai.bundle", "run", *([run_id] if run_id else [])]
    words += ["--config_file", str(files) if len(files) > 1 else files[0]]
    for name, value in overrides.items():
        words += [f"--{name}", str(value)]
    return words


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a config in another process, by default from another folder than the bundle's."""

    def runner(
        run_id: str | None, *configs: str, cwd: Path = tmp_path, **overrides: object
    ) -> subprocess.CompletedProcess:
        words = command(run_id, *configs, **overrides)
        return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)

    return runner


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory, template_head: Head) -> Path:
    """Four cases of 15 mL of simulated lesion each, as ``images/`` and ``labels/`` and as ``datalist.json``."""
    folder = tmp_path_factory.mktemp("cohort")
    affine, _ = atlas_grid()
    items = []
    for number in range(4):
        case = simulate_case(template_head, np.random.default_rng(number), volume_ml=15.0)
        for name, data in (("images", np.round(case.image * 1000).astype(np.int16)), ("labels", case.label)):
            (folder / name).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(data, affine), folder / name / f"case_{number}.nii.gz")
        items.append({"image": f"images/case_{number}.nii.gz", "label": f"labels/case_{number}.nii.gz"})
    (folder / "datalist.json").write_text(json.dumps({"training": items, "test": items[:2]}))
    return folder


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a thin network that has learnt nothing, with the settings that belong to them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(TSRLNet(features=FEATURES).state_dict(), folder / "model.pt")
    settings = {"space": "native", "spacing_mm": 2.0, "box": "brain", "box_mm": 192, "offsets": [-2, -1, 0, 1]}
    (folder / "model.json").write_text(json.dumps(settings))
    return folder / "model.pt"
