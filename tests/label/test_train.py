"""Labels that are submitted fine-tune the bundle's weights, which the next mask is made with."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.package import NAME
from tests.label.conftest import BundleRun
from tests.label.server import LabelServer

pytestmark = pytest.mark.label


@pytest.fixture(scope="module")
def labelled(server: LabelServer, case: Path) -> LabelServer:
    """The server with a label of both images: that of the one in the scanner's world lies on its grid."""
    server.submit_label("mni", case / "label.nii.gz")
    scanner = nib.load(case / "scanner.nii.gz")
    label = np.asanyarray(nib.load(case / "label.nii.gz").dataobj)[::-1, ::-1]
    nib.save(nib.Nifti1Image(label, scanner.affine), server.folder / "scanner_label.nii.gz")
    server.submit_label("scanner", server.folder / "scanner_label.nii.gz")
    return server


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def mask(server: LabelServer) -> np.ndarray:
    return np.asanyarray(server.mask("mni", device="cpu").dataobj)


def train_beside_the_server(server: LabelServer) -> None:
    """As 3D Slicer does: with all options of its panel, in a process that the server starts."""
    params: dict[str, Any] = server.panel("trainers") | {"device": "cpu", "max_epochs": 1, "val_split": 0.5}
    server.json("POST", f"/train/{NAME}", json=params)
    ended = server.wait_for("/train/")
    assert ended["status"] == "DONE", server.log_end()


def train_in_the_server(server: LabelServer) -> None:
    """As a script does: with what it cares for, until the training has ended."""
    params = {"device": "cpu", "max_epochs": 1, "val_split": 0}
    server.json("POST", f"/train/{NAME}?run_sync=true", json=params)


@pytest.mark.parametrize("train", [train_beside_the_server, train_in_the_server])
def test_training_fine_tunes_the_weights_and_the_mask_follows(
    train: Any, labelled: LabelServer, bundle_run: BundleRun
) -> None:
    weights = labelled.bundle / "models" / "model.pt"
    state, settings = torch.load(weights, weights_only=True), json.loads(weights.with_suffix(".json").read_text())
    before, kept, log = mask(labelled), digest(weights), labelled.log.read_text(errors="replace")
    train(labelled)
    log = labelled.log.read_text(errors="replace")[len(log) :]
    assert len(re.findall(r"Epoch\[1\] Metrics -- loss", log)) == 1  # trained once
    assert digest(weights) != kept
    written = json.loads(weights.with_suffix(".json").read_text())
    assert written == settings | {"epoch": 1, "validation_dice": written["validation_dice"]}
    tuned = torch.load(weights, weights_only=True)
    assert max(float((tuned[name].float() - state[name].float()).abs().max()) for name in state) > 1e-5
    after = mask(labelled)
    assert (after != before).any()
    assert 2 * (after & before).sum() / (after.sum() + before.sum()) > 0.7  # fine-tuned, not begun anew
    np.testing.assert_array_equal(after, np.asanyarray(bundle_run("mni").dataobj))


def test_the_shipped_weights_are_the_only_ones_that_are_offered(labelled: LabelServer) -> None:
    assert labelled.panel("models")["model_filename"] == "model.pt"
    assert sorted(file.name for file in (labelled.bundle / "models").iterdir()) == ["model.json", "model.pt"]
