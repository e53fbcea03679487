"""Backends: the same logits from another library, cached conversions, and clear errors where one is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch

from bundle.acceleration.backends import OpenVINOBackend, TorchBackend, choose_backend
from bundle.errors import InputError
from bundle.inferers import SliceStackInferer
from bundle.networks import AGMRNet, DUNet, SliceStackUNet, TSRLNet
from tests.acceleration.test_folding import trained

SMALL = (8, 16, 32, 32, 64)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of an OpenVINO that is installed."""
    pytest.importorskip("openvino", reason="make test-openvino installs it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "stroke-lesion-bundle"


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.acceleration.backends.find_spec", lambda name: None)


def network(kind: Callable[..., SliceStackUNet] = TSRLNet, seed: int = 0) -> SliceStackUNet:
    torch.manual_seed(seed)
    made = trained(kind(features=SMALL))
    assert isinstance(made, SliceStackUNet)
    return made


@torch.inference_mode()
def largest_difference(backend: Callable, of: SliceStackUNet, x: torch.Tensor) -> float:
    """Relative to the standard deviation of what the network gives."""
    expected = of(x)
    return float((backend(of)(x) - expected).abs().max() / expected.std())


@pytest.mark.openvino
@pytest.mark.parametrize("kind", [DUNet, AGMRNet, TSRLNet])
def test_openvino_returns_the_network_s_logits_at_any_size(
    installed: Path, kind: Callable[..., SliceStackUNet]
) -> None:
    backend, of = OpenVINOBackend(), network(kind)
    for count, height, width in ((5, 96, 96), (1, 96, 96), (2, 112, 96)):
        assert largest_difference(backend, of, torch.randn(count, 4, height, width)) < 1e-4


@pytest.mark.openvino
def test_a_conversion_is_cached_for_the_next_program(installed: Path) -> None:
    OpenVINOBackend()(network())
    assert sorted(file.suffix for file in installed.iterdir()) == [".bin", ".xml"]
    with mock.patch("bundle.acceleration.backends.convert_to_openvino", side_effect=AssertionError("converted again")):
        assert largest_difference(OpenVINOBackend(), network(), torch.randn(1, 4, 96, 96)) < 1e-4


@pytest.mark.openvino
@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_conversion_is_made_again(installed: Path, suffix: str) -> None:
    OpenVINOBackend()(network())
    (damaged,) = installed.glob(f"*{suffix}")
    damaged.write_bytes(b"")
    assert largest_difference(OpenVINOBackend(), network(), torch.randn(1, 4, 96, 96)) < 1e-4
    assert damaged.stat().st_size > 0


@pytest.mark.openvino
def test_it_computes_without_a_cache(installed: Path) -> None:
    installed.write_text("a file where the folder would be")
    assert largest_difference(OpenVINOBackend(), network(), torch.randn(1, 4, 96, 96)) < 1e-4


@pytest.mark.openvino
def test_other_weights_are_converted_again(installed: Path) -> None:
    backend = OpenVINOBackend()
    for seed in (0, 1, 0):
        assert largest_difference(backend, network(seed=seed), torch.randn(1, 4, 96, 96)) < 1e-4
    assert len(list(installed.glob("*.xml"))) == 2
    assert backend(network()) is backend(network())


def precisions(backend: OpenVINOBackend, of: SliceStackUNet) -> dict[str, str]:
    """In what each convolution is computed, by the name that the network's part has."""
    computed = backend(of)
    computed(torch.randn(1, 4, 96, 96))
    found = {}
    for layer in computed.queue[0].get_compiled_model().get_runtime_model().get_ops():
        info = layer.get_rt_info()
        for name in info["originalLayersNames"].astype(str).split(",") if "originalLayersNames" in info else ():
            if name.endswith(("/Convolution", "/ConvolutionBackpropData")):
                found[name.split("/")[0].removeprefix("__module.")] = info["runtimePrecision"].astype(str)
    return found


@pytest.mark.openvino
def test_in_bfloat16_the_first_and_the_last_convolution_stay_in_float32(installed: Path) -> None:
    if not OpenVINOBackend(amp=True).name.endswith("bf16"):
        pytest.skip("this processor has no bfloat16")
    for _ in ("converted", "read again"):
        found = precisions(OpenVINOBackend(amp=True), network())
        assert len(found) > 30
        exact = {name for name, precision in found.items() if precision == "f32"}
        assert exact == {"encoder.0.conv.conv_0.conv", "head"}
        assert {precision for name, precision in found.items() if name not in exact} == {"bf16"}


@pytest.mark.openvino
def test_nothing_is_reported_to_the_vendor(installed: Path) -> None:
    telemetry = pytest.importorskip("openvino_telemetry")
    with mock.patch.object(telemetry, "Telemetry", side_effect=AssertionError("a report")):
        OpenVINOBackend()(network())


@pytest.mark.openvino
def test_a_volume_comes_out_the_same(installed: Path) -> None:
    of, volume = network(), torch.rand(1, 1, 96, 96, 7)
    volume[..., 5:] = 0
    expected = SliceStackInferer(batch_size=3)(volume, of)
    torch.testing.assert_close(SliceStackInferer(backend="openvino")(volume, of), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.openvino
def test_auto_is_openvino_on_a_cpu(installed: Path) -> None:
    assert isinstance(choose_backend("auto", device=CPU), OpenVINOBackend)
    assert isinstance(choose_backend("auto", device=CUDA), TorchBackend)
    assert isinstance(choose_backend("auto"), TorchBackend)


@pytest.mark.usefixtures("missing")
def test_without_openvino_auto_is_torch() -> None:
    assert isinstance(choose_backend("auto", device=CPU), TorchBackend)


@pytest.mark.usefixtures("missing")
def test_without_openvino_the_error_says_how_to_install_it() -> None:
    with pytest.raises(InputError, match=r"^OpenVINO is not installed: pip install -r requirements/openvino\.txt"):
        choose_backend("openvino", device=CPU)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputError, match=r"^There is no backend 'tensorrt': choose auto, torch, openvino, openvino_"):
        SliceStackInferer(backend="tensorrt")


def test_openvino_is_not_for_cuda() -> None:
    with pytest.raises(InputError, match=r"^The backend openvino is for CPUs, and the device is cuda"):
        choose_backend("openvino", device=CUDA)
