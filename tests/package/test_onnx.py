"""``monai.bundle onnx_export`` as in docs/runtimes.md: onnxruntime gives torch's masks for any batch size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.networks import TSRLNet
from tests.package.conftest import ROOT, dice

pytestmark = pytest.mark.onnx

NAMES = "{'input_names': ['stacks'], 'output_names': ['logits'], 'dynamic_axes': {'stacks': {0: 'batch'}}}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network."""
    pytest.importorskip("onnxscript", reason="make test-onnx installs it")
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    words = ["--net_id", "network_def", "--filepath", file, "--ckpt_file", "models/model.pt"]
    words += ["--config_file", "configs/inference.json", "--input_shape", "[2,4,96,96]", "--converter_kwargs", NAMES]
    subprocess.run([sys.executable, "-m", "monai.bundle", "onnx_export", *words], cwd=ROOT, check=True)
    return file


def test_masks_of_simulated_slices_are_the_same_for_any_batch(
    exported: Path, network: TSRLNet, stacks: torch.Tensor
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape[1:]) == ("stacks", [4, 96, 96])
    assert (given.name, given.shape[1:]) == ("logits", [1, 96, 96])
    with torch.no_grad():
        expected = network(stacks).numpy()
    for count in (1, 3, len(stacks)):
        (logits,) = session.run(None, {"stacks": stacks[-count:].numpy()})
        np.testing.assert_allclose(logits, expected[-count:], atol=1e-3)
        assert dice(logits > 0, expected[-count:] > 0) > 0.999


def test_slices_of_another_size_are_refused(exported: Path) -> None:
    """The size at export is fixed in the pooling of the patches: another size must never give a mask."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="Got invalid dimensions for input: stacks"):
        session.run(None, {"stacks": np.zeros((1, 4, 112, 128), np.float32)})
