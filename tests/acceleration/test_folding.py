"""The form for inference, with folded batch norms and a 3D branch of 2D convolutions: the same logits."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bundle.acceleration.folding import fold_batch_norms, inference_form
from bundle.acceleration.inference_branch import SliceConvolution
from bundle.inferers import SliceStackInferer
from bundle.networks import AGMRNet, DUNet, SliceStackUNet, TSRLNet
from bundle.networks.blocks import VolumeConvolution

SMALL = (8, 16, 32, 32, 64)


def trained(network: nn.Module) -> nn.Module:
    """As if it had been trained: no batch norm is the identity."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for values, low, high in (
                (module.weight.data, -1.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                values.uniform_(low, high, generator=random)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


@torch.inference_mode()
def largest_difference(folded: nn.Module, network: nn.Module, x: torch.Tensor) -> float:
    """Relative to the standard deviation of what the network gives."""
    expected = network(x)
    return float((folded(x) - expected).abs().max() / expected.std())


@pytest.mark.parametrize("network", [DUNet, AGMRNet, TSRLNet])
def test_logits_are_the_same(network: Callable[..., SliceStackUNet]) -> None:
    torch.manual_seed(0)
    plain = trained(network(features=SMALL))
    folded = fold_batch_norms(plain)
    assert norms(folded) < 3 < norms(plain)  # CFF's two projections keep theirs
    assert largest_difference(folded, plain, torch.randn(2, 4, 96, 96)) < 1e-4


def test_the_network_is_not_changed() -> None:
    torch.manual_seed(0)
    plain, x = trained(TSRLNet(features=SMALL)), torch.randn(1, 4, 96, 96)
    before, state = plain(x), {name: values.clone() for name, values in plain.state_dict().items()}
    fold_batch_norms(plain)(x)
    assert torch.equal(plain(x), before)
    assert all(torch.equal(values, state[name]) for name, values in plain.state_dict().items())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("order", ["NDA", "NAD", "ADN", "DAN", "A", "N"])
def test_only_a_norm_directly_after_the_convolution_is_folded(order: str, transposed: bool) -> None:
    torch.manual_seed(0)
    block = trained(
        Convolution(2, 3, 5, strides=2, act="relu", norm="batch", adn_ordering=order, is_transposed=transposed)
    )
    folded = fold_batch_norms(block)
    assert norms(folded) == (0 if order[0] == "N" else norms(block))
    assert largest_difference(folded, block, torch.randn(2, 3, 8, 8)) < 1e-5


@pytest.mark.parametrize("slices", [4, 5, 6, 8])
@pytest.mark.parametrize("network", [DUNet, AGMRNet, TSRLNet])
def test_logits_of_the_inference_form_are_the_same(network: Callable[..., SliceStackUNet], slices: int) -> None:
    torch.manual_seed(0)
    plain = trained(network(features=SMALL, in_channels=slices))
    lean = inference_form(plain)
    assert not any(isinstance(module, nn.Conv3d) for module in lean.modules())
    assert largest_difference(lean, plain, torch.randn(2, slices, 96, 112)) < 1e-4


@pytest.mark.parametrize("fusion", ["cff_concatenate", "squeeze_excitation", "add", "concatenate"])
def test_every_fusion_takes_slices_as_channels(fusion: str) -> None:
    torch.manual_seed(0)
    plain = trained(DUNet(features=SMALL, fusion=fusion))
    assert largest_difference(inference_form(plain), plain, torch.randn(2, 4, 96, 96)) < 1e-4


@pytest.mark.parametrize("slices", [1, 2, 4, 5])
@pytest.mark.parametrize("apart", [False, True])
def test_slices_as_channels_equal_the_3d_convolution(slices: int, apart: bool) -> None:
    torch.manual_seed(0)
    convolution, volume = VolumeConvolution(3, 5), torch.randn(2, 3, 8, 9, slices)
    expected = torch.relu(nn.Conv3d.forward(convolution, volume))
    planes = torch.cat(SliceConvolution(convolution, slices, apart)(volume.permute(0, 4, 1, 2, 3).flatten(1, 2)), dim=1)
    torch.testing.assert_close(planes.unflatten(1, (slices, 5)).permute(0, 2, 3, 4, 1), expected)


def test_apart_only_slices_that_the_kernel_reaches_are_multiplied() -> None:
    """Ten pairs of four slices are neighbours or the same; at once it would be all sixteen."""
    pairs = [
        sum(conv.weight.numel() for conv in SliceConvolution(VolumeConvolution(3, 5), 4, apart).groups) / (3 * 5 * 9)
        for apart in (False, True)
    ]
    assert pairs == [16, 10]


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"in eval\(\) only"):
        fold_batch_norms(TSRLNet(features=SMALL))


def test_the_inferer_folds_and_follows_weights_that_change() -> None:
    torch.manual_seed(0)
    network, volume = trained(DUNet(features=SMALL)), torch.rand(1, 1, 96, 96, 4)
    inferer = SliceStackInferer(batch_size=2)
    with mock.patch("torch.nn.functional.batch_norm", side_effect=AssertionError("a batch norm is computed")):
        first = inferer(volume, network)
    network.head.bias.data += 1
    torch.testing.assert_close(inferer(volume, network), first + 1)
