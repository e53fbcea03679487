"""Quantization to integers: nearly the same masks, and a clear error where it is not possible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from bundle.acceleration.quantization import SimulatedQuantization
from bundle.data.simulate import load_head, simulate_case
from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.inferers import SliceStackInferer
from bundle.metrics import case_metrics
from bundle.mni import TEMPLATE, atlas_grid
from bundle.networks import TSRLNet
from bundle.transforms import VolumePreprocessing

# In pytest NNCF reports nothing by itself.
PROGRAM = """
from bundle.acceleration.backends import convert_to_openvino
from bundle.acceleration.quantization import SimulatedQuantization
from bundle.acceleration.folding import inference_form
from bundle.networks import DUNet
from bundle.transforms import VolumePreprocessing

quantize = SimulatedQuantization(VolumePreprocessing("image", spacing_mm=2.0, slice_size=96), volumes=1, slices=4)
quantize(convert_to_openvino(inference_form(DUNet(features=(8, 16, 32, 32, 64)).eval())))
import nncf.telemetry

print("what reports:", type(nncf.telemetry.telemetry).__name__)
"""
VNNI = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni"))


@pytest.fixture
def preprocessing() -> VolumePreprocessing:
    return VolumePreprocessing("image", spacing_mm=2.0, slice_size=96, space="mni")


def simulated(preprocessing: VolumePreprocessing, seed: int) -> torch.Tensor:
    """``(1, 1, 96, 96, D)`` of a case that nothing was calibrated on."""
    case = simulate_case(load_head(str(TEMPLATE)), np.random.default_rng((77, seed)), volume_ml=40.0)
    image = MetaTensor(torch.from_numpy(case.image)[None], affine=torch.as_tensor(atlas_grid()[0]))
    prepared: torch.Tensor = preprocessing.after_loading({"image": image})["image"]
    return prepared[None]


@pytest.mark.openvino
@pytest.mark.skipif(not VNNI, reason="the processor has no VNNI")
def test_masks_of_the_shipped_weights_hardly_differ(
    preprocessing: VolumePreprocessing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = TSRLNet().eval()
    network.load_state_dict(torch.load(Path(bundle_root()) / "models" / "model.pt"))
    ways = {name: SliceStackInferer(backend=name, preprocessing=preprocessing) for name in ("torch", "openvino_int8")}
    for seed in range(2):
        volume = simulated(preprocessing, seed)
        with torch.inference_mode():
            exact, quantized = (inferer(volume, network)[0, 0] > 0 for inferer in ways.values())
        assert exact.sum() > 1000
        assert case_metrics(quantized, exact, (2.0,) * 3)["dsc"] > 0.98
    # It was kept: no second program calibrates.
    with mock.patch.object(SimulatedQuantization, "stacks", side_effect=AssertionError("calibrated again")):
        again = SliceStackInferer(backend="openvino_int8", preprocessing=preprocessing)
        assert torch.equal(again(volume, network)[0, 0] > 0, quantized)


@pytest.mark.openvino
@pytest.mark.skipif(not VNNI, reason="the processor has no VNNI")
def test_it_is_calibrated_on_the_same_strokes_each_time(preprocessing: VolumePreprocessing) -> None:
    make = SimulatedQuantization(preprocessing, volumes=2, slices=5)
    stacks = make.stacks()
    assert stacks.shape == (10, 4, 96, 96)
    assert torch.equal(stacks, make.stacks())
    assert stacks[1:4].flatten(1).any(dim=1).all()  # slices through the head


@pytest.mark.openvino
@pytest.mark.skipif(not VNNI, reason="the processor has no VNNI")
def test_nothing_is_reported_to_the_vendor() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NNCF_CI"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=bundle_root(), env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    assert done.stdout.strip().endswith("what reports: MagicMock")


def test_without_nncf_the_error_says_how_to_install_it(
    preprocessing: VolumePreprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.acceleration.quantization.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^NNCF is not installed: pip install -r requirements/openvino\.txt"):
        SliceStackInferer(backend="openvino_int8", preprocessing=preprocessing)


def test_a_processor_without_integer_instructions_is_refused(
    preprocessing: VolumePreprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.acceleration.quantization.find_spec", lambda name: object())
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_vnni": False, "avx512_4vnniw": True}
    )
    with pytest.raises(InputError, match=r"^This processor has no instructions for eight-bit integers"):
        SliceStackInferer(backend="openvino_int8", preprocessing=preprocessing)


def test_int8_without_preprocessing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs the preprocessing for its quantization"):
        SliceStackInferer(backend="openvino_int8")
