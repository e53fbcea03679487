"""The three networks: size and work against the thesis's tables, gradients, outputs, refusals, export, every setting.

The counts run on the meta device, at the thesis's widths and 192 x 192; whatever computes runs at small widths.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bundle.networks import AGMRNet, DUNet, NetworkOutput, SliceStackUNet, TSRLNet
from bundle.networks.attention import CoarsePatchAttention
from bundle.networks.blocks import VolumeConvolution
from scripts.thesis.thop_rules import THOP_0_0_31, THOP_0_1_1, Rules, counted_operations, counted_parameters

NETWORKS = [DUNet, AGMRNet, TSRLNet]
THESIS_SIZE = 192
# Not doubling everywhere, so that a width taken from the wrong scale shows.
SMALL = (8, 16, 32, 32, 64)
WIDTHS = (32, 64, 128, 256, 512)
# In the decoder, by the width c of its four levels.
DECODER_WIDTHS = WIDTHS[:4]


def on_meta(network: Callable[..., SliceStackUNet], **settings: Any) -> SliceStackUNet:
    with torch.device("meta"):
        return network(**settings)


def thesis_input() -> torch.Tensor:
    return torch.empty(1, 4, THESIS_SIZE, THESIS_SIZE, device="meta")


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small(network: Callable[..., SliceStackUNet], seed: int = 0, **settings: Any) -> SliceStackUNet:
    torch.manual_seed(seed)
    return network(**({"features": SMALL} | settings))


def stacks(batch: int = 1, height: int = 96, width: int = 96, slices: int = 4) -> torch.Tensor:
    return torch.randn(batch, slices, height, width, generator=torch.Generator().manual_seed(1))


def tensors(output: NetworkOutput) -> list[torch.Tensor]:
    return [output.logits, *output.side_logits, *output.patch_scores]


# --- parameters and work, tables 3.7 and 4.3 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "settings", "expected"),
    [
        (DUNet, {}, 9_503_779),
        (AGMRNet, {}, 23_799_292),
        (TSRLNet, {}, 12_854_496),
        (AGMRNet, {"upsampling_kernels": (3, 3, 3, 3)}, 12_658_163 + 9),
        (AGMRNet, {"upsampling_kernels": (5, 5, 5, 5)}, 18_228_723 + 9),
        (AGMRNet, {"upsampling_kernels": (7, 7, 7, 7)}, 26_584_563 + 9),
        (AGMRNet, {"upsampling_kernels": (9, 9, 9, 9)}, 37_725_683 + 9),
    ],
)
def test_parameters_are_the_pinned_number(network: Any, settings: dict[str, Any], expected: int) -> None:
    assert parameters(on_meta(network, **settings)) == expected


@pytest.mark.parametrize(
    ("network", "settings", "rules", "thesis"),
    [
        (DUNet, {}, THOP_0_0_31, 9_503_779),
        (AGMRNet, {}, THOP_0_0_31, 23_799_283),
        (AGMRNet, {"upsampling_kernels": (3, 3, 3, 3)}, THOP_0_0_31, 12_658_163),
        (AGMRNet, {"upsampling_kernels": (5, 5, 5, 5)}, THOP_0_0_31, 18_228_723),
        (AGMRNet, {"upsampling_kernels": (7, 7, 7, 7)}, THOP_0_0_31, 26_584_563),
        (AGMRNet, {"upsampling_kernels": (9, 9, 9, 9)}, THOP_0_0_31, 37_725_683),
        (TSRLNet, {}, THOP_0_1_1, 12_854_496),
    ],
)
def test_thesis_parameters_come_out_of_the_tool_that_it_used(
    network: Any, settings: dict[str, Any], rules: Rules, thesis: int
) -> None:
    assert counted_parameters(on_meta(network, **settings), rules) == thesis


def multiply_accumulates(network: SliceStackUNet) -> int:
    """With every 3D convolution counted as one, padding included; ``VolumeConvolution`` takes shortcuts."""
    as_3d = mock.patch.object(VolumeConvolution, "forward", nn.Conv3d.forward)
    with as_3d, FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(thesis_input())
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("network", "expected"), [(DUNet, 18_022_077_440), (AGMRNet, 24_212_886_864), (TSRLNet, 19_721_340_240)]
)
def test_true_multiply_accumulates_at_192(network: Any, expected: int) -> None:
    assert multiply_accumulates(on_meta(network)) == expected


@pytest.mark.parametrize("network", NETWORKS)
def test_thop_counts_transposed_convolutions_four_times_and_other_products_once(network: Any) -> None:
    net = on_meta(network)
    counted = counted_operations(net, thesis_input(), THOP_0_1_1)
    products = counted["convolution"] + counted["linear"] + counted["transposed convolution"] // 4
    assert products == multiply_accumulates(net)


# The differences between the thesis's modules and ours, in operations of the tool. Each is a term of
# docs/complexity.md. Scales of the encoder: 192, 96, 48, 24, 12; of the decoder: the first four.

ENCODER_SIZES = [THESIS_SIZE >> level for level in range(5)]
DECODER_SIZES = ENCODER_SIZES[:4]
PATCHES = 6 * 6


def plain_pooling_in_cpa(rules: Rules) -> int:
    """``nn.AvgPool2d``, 1 per output element, for our ``nn.AdaptiveAvgPool2d``, its window + 1 per output element."""
    return sum(PATCHES - PATCHES * ((size // 6) ** 2 + 1) for size in ENCODER_SIZES)


def upsampling_modules_in_cpa(rules: Rules) -> int:
    """The 6x6 scores go to every encoder level's size through a nearest ``nn.Upsample``, ours through a function."""
    return sum(rules.nearest * size * size for size in ENCODER_SIZES)


def upsampling_modules_in_crl(rules: Rules) -> int:
    """The deepest map goes to every skip's size through a nearest ``nn.Upsample``, ours through a function."""
    return sum(rules.nearest * size * size for size in DECODER_SIZES)


def functional_upsampling_in_the_decoder(rules: Rules) -> int:
    """Our D-UNet decoder upsamples c channels to 24, 48, 96, 192 with a nearest ``nn.Upsample``, a function there."""
    doubled = zip(WIDTHS[1:], DECODER_SIZES, strict=True)
    return -sum(rules.nearest * channels * size * size for channels, size in doubled)


@pytest.mark.parametrize(
    ("term", "rules", "operations"),
    [
        (plain_pooling_in_cpa, THOP_0_0_31, -49_104),
        (plain_pooling_in_cpa, THOP_0_1_1, -49_104),
        (upsampling_modules_in_cpa, THOP_0_0_31, 0),
        (upsampling_modules_in_cpa, THOP_0_1_1, 49_104),
        (upsampling_modules_in_crl, THOP_0_1_1, 48_960),
        (functional_upsampling_in_the_decoder, THOP_0_0_31, 0),
        (functional_upsampling_in_the_decoder, THOP_0_1_1, -4_423_680),
    ],
)
def test_each_named_difference_is_the_documented_number(
    term: Callable[[Rules], int], rules: Rules, operations: int
) -> None:
    assert term(rules) == operations


@pytest.mark.parametrize(
    ("network", "rules", "ours", "terms", "expected"),
    [
        (DUNet, THOP_0_0_31, 18_089_374_976, [functional_upsampling_in_the_decoder], 18_089_374_976),
        (
            AGMRNet,
            THOP_0_0_31,
            42_872_075_988,
            [plain_pooling_in_cpa, upsampling_modules_in_cpa],
            42_872_026_884,
        ),
        (
            AGMRNet,
            THOP_0_1_1,
            42_900_919_902,
            [plain_pooling_in_cpa, upsampling_modules_in_cpa],
            42_900_919_902,
        ),
        (
            TSRLNet,
            THOP_0_1_1,
            23_916_070_494,
            [plain_pooling_in_cpa, upsampling_modules_in_cpa, upsampling_modules_in_crl],
            23_916_119_454,
        ),
    ],
)
def test_counted_operations_of_the_thesis_are_ours_plus_the_named_differences(
    network: Any, rules: Rules, ours: int, terms: list[Callable[[Rules], int]], expected: int
) -> None:
    counted = counted_operations(on_meta(network), thesis_input(), rules).total()
    """The thesis prints three of them; AGMR-Net on the tool of TSRL-Net is what compares the two."""
    assert counted == ours
    assert counted + sum(term(rules) for term in terms) == expected


@pytest.mark.parametrize(
    ("network", "rules", "rows"),
    [
        (DUNet, THOP_0_0_31, [18_022_077_440, 0, 24_535_296, 42_762_240, 0, 0, 0, 0]),
        (AGMRNet, THOP_0_0_31, [24_212_886_864, 18_572_378_112, 28_958_976, 57_802_752, 0, 180, 0, 0]),
        (AGMRNet, THOP_0_1_1, [24_212_886_864, 18_572_378_112, 0, 115_605_504, 138, 180, 49_104, 0]),
        (TSRLNet, THOP_0_1_1, [19_721_340_240, 4_076_863_488, 0, 117_817_344, 138, 180, 49_104, 48_960]),
    ],
)
def test_every_row_between_the_true_work_and_the_counted_is_the_documented_number(
    network: Any, rules: Rules, rows: list[int]
) -> None:
    net = on_meta(network)
    counted = counted_operations(net, thesis_input(), rules)
    without_bias = counted_operations(net, thesis_input(), replace(rules, bias=0))
    attention = any(isinstance(module, CoarsePatchAttention) for module in net.modules())
    assert [
        multiply_accumulates(net),
        without_bias["transposed convolution"] // 4 * 3,
        counted.total() - without_bias.total(),
        counted["norm"],
        counted["prelu"],
        counted["adaptive pooling"] + (plain_pooling_in_cpa(rules) if attention else 0),
        upsampling_modules_in_cpa(rules) if attention else 0,
        upsampling_modules_in_crl(rules) if network is TSRLNet else 0,
    ] == rows
    thesis = {(DUNet, THOP_0_0_31): 18_089_374_976, (AGMRNet, THOP_0_0_31): 42_872_026_884}
    thesis |= {(AGMRNet, THOP_0_1_1): 42_900_919_902, (TSRLNet, THOP_0_1_1): 23_916_119_454}
    assert sum(rows) == thesis[network, rules]


# --- training: gradients, outputs, mixed precision -------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_gets_a_finite_gradient(network: Any) -> None:
    # 64 channels at the joins: with a hidden layer of one or two units all of them can happen to be off.
    net = small(network, features=(8, 64, 64, 32, 32)).train()
    sum(tensor.square().mean() for tensor in tensors(net(stacks(batch=2)))).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    # A bias in front of a batch norm has none but rounding, so that biases are left out here.
    assert [name for name, gradient in gradients.items() if "bias" not in name and not gradient.any()] == []


@pytest.mark.parametrize(("network", "sides", "scores"), [(DUNet, 0, 0), (AGMRNet, 0, 5), (TSRLNet, 4, 5)])
def test_train_gives_named_outputs_with_sides_from_deep_to_fine(network: Any, sides: int, scores: int) -> None:
    output = small(network).train()(stacks(batch=2, height=112, width=160))
    assert output._fields == ("logits", "side_logits", "patch_scores")
    assert output.logits.shape == (2, 1, 112, 160)
    expected_sides = [(2, 1, 14, 20), (2, 1, 28, 40), (2, 1, 56, 80), (2, 1, 112, 160)][:sides]
    assert [tuple(side.shape) for side in output.side_logits] == expected_sides
    assert [tuple(score.shape) for score in output.patch_scores] == [(2, 1, 6, 6)] * scores


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (112, 160), (192, 192)])
def test_eval_gives_logits_alone_at_every_size_that_fits(network: Any, height: int, width: int) -> None:
    with torch.no_grad():
        logits = small(network).eval()(stacks(height=height, width=width))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, 1, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
def test_eval_gives_logits_and_not_probabilities(network: Any) -> None:
    net = small(network).eval()
    with torch.no_grad():
        net.head.bias.fill_(-7.0)
        assert (net(stacks()) < 0).any()


@pytest.mark.parametrize("network", NETWORKS)
def test_second_call_equals_the_first_and_the_input_is_left_alone(network: Any) -> None:
    net, x = small(network).eval(), stacks()
    before = x.clone()
    with torch.no_grad():
        assert torch.equal(net(x), net(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_autocast_is_finite_with_float32_patch_scores(network: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = small(network).train()(stacks(batch=2))
    assert output.logits.dtype == torch.bfloat16
    assert all(tensor.isfinite().all() for tensor in tensors(output))
    for scores in output.patch_scores:
        assert scores.dtype == torch.float32
        assert scores.min() >= 0
        assert scores.max() <= 1


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_autocast_gives_finite_gradients_of_the_size_of_float32s(network: Any) -> None:
    """The direction cannot be compared: in an untrained network rounding alone turns it. See the parts' tests."""
    norms = []
    for enabled in (False, True):
        net = small(network, dropout=0.0).train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = net(stacks(batch=2))
        sum(tensor.float().square().mean() for tensor in tensors(output)).backward()
        norms.append(torch.nn.utils.get_total_norm([parameter.grad for parameter in net.parameters()]).item())
    assert norms[1] == pytest.approx(norms[0], rel=0.5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pair", combinations(range(4), 2))
def test_swapping_two_slices_changes_the_logits(network: Any, pair: tuple[int, int]) -> None:
    net, x = small(network).eval(), stacks()
    order = list(range(4))
    order[pair[0]], order[pair[1]] = pair[1], pair[0]
    with torch.no_grad():
        assert (net(x) - net(x[:, order])).abs().max() > 1e-3


# --- what is wired to what -------------------------------------------------------------------------------------------


def calls(net: SliceStackUNet, names: list[str], batch: int = 1) -> dict[str, tuple[tuple[torch.Tensor, ...], Any]]:
    """Inputs and output of the named modules in one call of ``net`` in eval()."""
    seen: dict[str, tuple[tuple[torch.Tensor, ...], Any]] = {}
    for name in names:
        hook = lambda _, given, made, name=name: seen.update({name: (given, made)})  # noqa: E731
        net.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        net.eval()(stacks(batch))
    return seen


@pytest.mark.parametrize("network", NETWORKS)
def test_the_joined_map_is_both_pooled_and_the_skip(network: Any) -> None:
    names = ["fuse_half", "encoder.1", "encoder.2", "volume_levels.1", "decoder.2.up", "decoder.2.conv"]
    seen = calls(small(network, residual=None), names)
    (volume, plane), joined = seen["fuse_half"]
    assert torch.equal(volume, seen["volume_levels.1"][1])
    assert torch.equal(plane, seen["encoder.1"][1][0])  # under attention, where there is one
    assert torch.equal(seen["encoder.2"][0][0], torch.nn.functional.max_pool2d(joined, 2))
    up = seen["decoder.2.up"][1]
    assert torch.equal(seen["decoder.2.conv"][0][0], torch.cat([joined, up], dim=1))


def test_3d_branch_sees_the_slices_as_depth_and_halves_it() -> None:
    seen = calls(small(DUNet), ["volume_levels.0", "volume_levels.1", "volume_levels.2"])
    assert torch.equal(seen["volume_levels.0"][0][0], stacks().permute(0, 2, 3, 1).unsqueeze(1))
    assert seen["volume_levels.1"][0][0].shape == (1, 8, 48, 48, 2)
    assert seen["volume_levels.2"][0][0].shape == (1, 16, 24, 24, 1)


@pytest.mark.parametrize("network", NETWORKS)
def test_features_stay_channels_last_from_the_first_to_the_last(network: Any) -> None:
    """One layer that falls back takes all that follow with it, which are slower then."""
    encoder, decoder = [f"encoder.{level}.conv" for level in range(5)], [f"decoder.{level}.conv" for level in range(4)]
    volumes = [f"volume_levels.{level}" for level in range(3)]
    seen = calls(small(network), [*encoder, *decoder, *volumes], batch=2)
    for name in (*encoder, *decoder):
        assert seen[name][1].is_contiguous(memory_format=torch.channels_last), name
    for name in volumes:
        assert seen[name][1].is_contiguous(memory_format=torch.channels_last_3d), name


def test_residual_gets_the_skip_the_side_probability_and_the_deepest_map() -> None:
    parts = ("side", "skip", "residual", "up", "conv")
    names = [f"decoder.{level}.{part}" for level in range(4) for part in parts]
    seen = calls(small(TSRLNet), [*names, "encoder.0", "encoder.3", "encoder.4"])
    for level in range(4):
        side, skip, residual, up, conv = (seen[f"decoder.{level}.{part}"] for part in parts)
        assert torch.equal(side[0][0], up[1])
        (given_skip, found, attention), handed_over = residual
        assert torch.equal(given_skip, skip[1])
        assert torch.equal(found, torch.sigmoid(side[1]))
        assert torch.equal(attention, seen["encoder.4"][1][1][0])
        assert torch.equal(conv[0][0], torch.cat([handed_over, up[1]], dim=1))
    assert torch.equal(seen["decoder.0.skip"][1], seen["encoder.3"][1][0])
    assert torch.equal(seen["decoder.3.skip"][1], seen["encoder.0"][1][0])


def kinds(module: torch.nn.Module) -> list[str]:
    """Layers of the module in their order, without those that do nothing."""
    names = [type(layer).__name__ for layer in module.modules() if next(layer.children(), None) is None]
    return [name for name in names if name != "Identity"]


def test_side_output_is_a_quarter_of_the_channels_with_dropout_of_a_tenth_and_a_1x1_head() -> None:
    side = small(TSRLNet, dropout=0.5).decoder[0].side
    assert kinds(side) == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]
    assert [layer.p for layer in side.modules() if isinstance(layer, torch.nn.Dropout)] == [0.1]
    assert (side[0].conv.in_channels, side[0].conv.out_channels) == (32, 8)
    assert side[1].kernel_size == (1, 1)


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (DUNet, ["Upsample", "Conv2d", "ReLU"]),
        (AGMRNet, [*["ConvTranspose2d", "BatchNorm2d", "ReLU", "Dropout"] * 4, "Conv2d", "BatchNorm2d", "ReLU"]),
        (TSRLNet, ["ConvTranspose2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d", "BatchNorm2d", "ReLU"]),
    ],
)
def test_upsampling_has_the_layers_of_its_network(network: Any, layers: list[str]) -> None:
    assert [kinds(level.up) for level in small(network).decoder] == [layers] * 4


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 90, 96), r"multiples of 16 and at least 96, got 90 x 96: pad the slices to 96 x 96 \(in"),
        ((1, 4, 80, 80), r"multiples of 16 and at least 96, got 80 x 80: pad the slices to 96 x 96 \(in"),
        ((1, 4, 100, 193), r"got 100 x 193: pad the slices to 112 x 208 \(in"),
        ((1, 3, 96, 96), r"must be \(B, 4, H, W\), got \[1, 3, 96, 96\]"),
        ((4, 96, 96), r"must be \(B, 4, H, W\), got \[4, 96, 96\]"),
        ((1, 1, 4, 96, 96), r"must be \(B, 4, H, W\), got \[1, 1, 4, 96, 96\]"),
    ],
)
def test_other_shapes_are_refused_with_a_shape_that_fits(network: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(network).eval()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"residual": "reverse"}, "residual='reverse' needs the side outputs: set side_outputs to true"),
        ({"residual": "coarse", "attention": "patch"}, "residual='coarse' needs the side outputs"),
        ({"residual": "coarse", "side_outputs": True}, "set attention to 'patch' or 'pixel'"),
        ({"in_channels": 3}, r"in_channels must be at least 4 \(the stacked slices\), got 3"),
        ({"features": (8, 16, 32, 64)}, r"widths of five scales, got \(8, 16, 32, 64\)"),
        ({"upsampling_kernels": (3, 5, 7)}, "64 channels cannot be shared by 3 kernel sizes equally"),
        ({"upsampling_kernels": (2, 4)}, r"kernel_sizes must be odd, got \(2, 4\)"),
        ({"encoder_kernels": (4,)}, r"kernel_sizes must be odd, got \(4,\)"),
        ({"skip_kernels": (4,)}, r"kernel_sizes must be odd, got \(4,\)"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SliceStackUNet(**({"features": SMALL} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "path"}, "path.*patch"),
        ({"fusion": "cf"}, "cf.*cff"),
        ({"fusion": None}, "None.*cff"),
        ({"residual": "course", "side_outputs": True, "attention": "patch"}, "course.*coarse"),
    ],
)
def test_unknown_name_is_refused_with_the_known_ones(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        SliceStackUNet(features=SMALL, **settings)


@pytest.mark.parametrize("network", [*NETWORKS, SliceStackUNet])
def test_misspelt_setting_is_named(network: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'featurs'"):
        network(featurs=SMALL)


# --- save, script, export --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_saved_weights_give_the_same_values_in_another_network(network: Any) -> None:
    net, other, x = small(network).eval(), small(network, seed=1).eval(), stacks()
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        assert not torch.equal(net(x), other(x))
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(net(x), other(x))


@pytest.mark.parametrize("network", NETWORKS)
def test_scripted_network_equals_eager(network: Any) -> None:
    net, x = small(network).eval(), stacks(height=112, width=96)
    scripted = torch.jit.script(net)
    with torch.no_grad():
        torch.testing.assert_close(scripted(x), net(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_scripted_network_refuses_a_wrong_size_in_words(network: Any) -> None:
    scripted = torch.jit.script(small(network).eval())
    with pytest.raises(torch.jit.Error, match="pad the slices to 96 x 96"):
        scripted(torch.zeros(1, 4, 90, 96))


@pytest.mark.parametrize("network", NETWORKS)
def test_exported_network_equals_eager(network: Any) -> None:
    net, x = small(network).eval(), stacks(height=112, width=96)
    with torch.no_grad():
        exported = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(exported(x), net(x), rtol=0, atol=1e-5)


# --- settings --------------------------------------------------------------------------------------------------------

# Parameters of one more or one fewer part, worked out by hand from the layers that docs and thesis name.
CPA_PARAMETERS = 5 * (36 * 18 + 1 + 18 * 36)
PIXEL_PARAMETERS = sum(WIDTHS) + 5
# Two branches of 2C -> C/8 -> C and a PReLU each, at C = 64 and 128.
CFF_PARAMETERS = sum(2 * (2 * c * c // 8 + 1 + c // 8 * c) for c in (64, 128))
CFF_PARAMETERS_AT_32 = sum(2 * (2 * c * c // 32 + 1 + c // 32 * c) for c in (64, 128))
# Two branches of C -> C/16 -> C; the projection loses its batch norm.
SE_PARAMETERS = sum(2 * 2 * c * c // 16 - 2 * c for c in (64, 128))
# Twice as wide a join widens the next encoder level's first convolution and the decoder's on the same level.
CONCATENATED = 9 * (64 * 128 + 64 * 64 + 128 * 256 + 128 * 128)
# Kernels 3, 5, 7, 9, each C -> C/4 with bias and batch norm: 164 weights per pair of channels, 4 by channel shares.
MULTI_SCALE = {c: 164 * c * c // 4 + 3 * c for c in (*WIDTHS, 1024)}
MDU_PARAMETERS = sum(MULTI_SCALE[2 * c] for c in DECODER_WIDTHS)
# c -> c/4 (3x3, bias, batch norm), c/4 -> 1 (1x1, bias).
SIDE_PARAMETERS = sum(9 * c * c // 4 + 3 * c // 4 + c // 4 + 1 for c in DECODER_WIDTHS)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"attention": None}, -CPA_PARAMETERS),
        ({"attention": "pixel"}, PIXEL_PARAMETERS - CPA_PARAMETERS),
        ({"fusion": "cff_concatenate"}, CONCATENATED),
        ({"fusion": "add"}, -CFF_PARAMETERS),
        ({"fusion": "concatenate"}, CONCATENATED - CFF_PARAMETERS),
        ({"fusion": "squeeze_excitation"}, SE_PARAMETERS - CFF_PARAMETERS),
        ({"fusion_reduction": 32}, CFF_PARAMETERS_AT_32 - CFF_PARAMETERS),
        # Interpolation has no weights, and D-UNet's convolution behind it no batch norm.
        ({"upsampling_kernels": ()}, -MDU_PARAMETERS - 2 * sum(DECODER_WIDTHS)),
        ({"upsampling_kernels": (3,)}, sum(9 * 4 * c * c + 6 * c for c in DECODER_WIDTHS) - MDU_PARAMETERS),
        ({"encoder_kernels": (3, 5, 7, 9)}, sum(MULTI_SCALE[c] for c in WIDTHS)),
        ({"skip_kernels": (3, 5, 7, 9)}, sum(MULTI_SCALE[c] for c in DECODER_WIDTHS)),
        ({"side_outputs": True}, SIDE_PARAMETERS),
        # First convolution, and the projections of 4 instead of 2, and 2 instead of 1 slices.
        ({"in_channels": 8}, 9 * (4 * 32 + 2 * 64 + 1 * 128)),
        ({"out_channels": 3}, 2 * (32 + 1)),
        # At 3 x 3 patches: 9 -> 4 -> 9.
        ({"patch_grid": 3}, 5 * (9 * 4 + 1 + 4 * 9) - CPA_PARAMETERS),
        # A level of 12 x 12: 144 -> 72 -> 144; one of both.
        ({"patch_grid": (12, 6, 6, 6, (3, 6))}, 2 * 144 * 72 - 2 * 36 * 18 + 9 * 4 + 1 + 4 * 9),
    ],
)
def test_setting_changes_agmr_net_by_the_parameters_of_its_part(settings: dict[str, Any], difference: int) -> None:
    assert parameters(on_meta(AGMRNet, **settings)) == 23_799_292 + difference


ABLATIONS: list[dict[str, Any]] = [
    {"attention": None, "residual": None},
    {"attention": "pixel"},
    {"fusion": "add"},
    {"fusion": "concatenate"},
    {"fusion": "cff_concatenate"},
    {"fusion": "squeeze_excitation"},
    {"fusion_reduction": 32},
    {"upsampling_kernels": ()},
    {"upsampling_kernels": (3, 5, 7, 9)},
    {"upsampling_kernels": (9, 9, 9, 9)},
    {"encoder_kernels": (3, 5, 7, 9)},
    {"skip_kernels": (3, 5, 7, 9)},
    {"side_outputs": False, "residual": None},
    {"residual": None},
    {"residual": "reverse"},
    {"patch_grid": (12, 12, 6, 6, 6)},
    {"out_channels": 3},
    {"in_channels": 8},
]


@pytest.mark.parametrize("settings", ABLATIONS, ids=str)
def test_tsrl_net_with_one_setting_changed_gives_outputs_of_the_right_shape(settings: dict[str, Any]) -> None:
    output = small(TSRLNet, **settings).train()(stacks(batch=2, slices=settings.get("in_channels", 4)))
    channels = settings.get("out_channels", 1)
    sizes = [12, 24, 48, 96] if settings.get("side_outputs", True) else []
    assert [tuple(side.shape) for side in output.side_logits] == [(2, channels, size, size) for size in sizes]
    assert len(output.patch_scores) == (5 if settings.get("attention", "patch") == "patch" else 0)
    assert output.logits.shape == (2, channels, 96, 96)
    assert all(tensor.isfinite().all() for tensor in tensors(output))


def test_the_two_residuals_and_none_differ_on_the_same_weights() -> None:
    nets = [small(TSRLNet, residual=residual).eval() for residual in ("coarse", "reverse", None)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        logits = [net(stacks()) for net in nets]
    for first, second in combinations(logits, 2):
        assert (first - second).abs().max() > 1e-3


def test_coarse_residual_takes_the_pixel_attention_of_the_deepest_level() -> None:
    nets = [small(TSRLNet, residual=residual, attention="pixel").eval() for residual in ("coarse", "reverse")]
    nets[1].load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        assert (nets[0](stacks()) - nets[1](stacks())).abs().max() > 1e-3


def test_side_outputs_reach_the_logits_only_through_a_residual() -> None:
    for residual, reached in (("coarse", True), ("reverse", True), (None, False)):
        net = small(TSRLNet, residual=residual).train()
        net(stacks(batch=2)).logits.sum().backward()
        weight = net.decoder[0].side[1].weight
        assert (weight.grad is not None and bool(weight.grad.any())) == reached


def test_dropout_of_0_makes_training_repeatable_and_above_0_does_not() -> None:
    for dropout, repeatable in ((0.0, True), (0.5, False)):
        net = small(AGMRNet, dropout=dropout).train()
        x = stacks(batch=2)
        with torch.no_grad():
            assert torch.equal(net(x).logits, net(x).logits) == repeatable


def test_patch_grid_sets_the_scores_grid_and_the_smallest_size() -> None:
    net = small(AGMRNet, patch_grid=3).train()
    output = net(stacks(batch=2, height=48, width=48))
    assert [tuple(scores.shape) for scores in output.patch_scores] == [(2, 1, 3, 3)] * 5
    with pytest.raises(ValueError, match="at least 48, got 32 x 48: pad the slices to 48 x 48"):
        net(stacks(height=32, width=48))


def test_each_level_can_have_grids_of_its_own() -> None:
    net = small(TSRLNet, patch_grid=(24, (6, 12), 12, 6, (3, 6))).train()
    output = net(stacks(batch=2))
    assert [score.shape[-1] for score in output.patch_scores] == [24, 6, 12, 12, 6, 3, 6]
    assert net.min_size == 96
    assert small(TSRLNet, patch_grid=(6, 6, 6, 12, 6)).min_size == 96
    assert small(TSRLNet, patch_grid=(6, 6, 6, 24, 6)).min_size == 192
    assert small(TSRLNet, patch_grid=(50, 3, 3, 3, 3)).min_size == 64  # a multiple of 16


@pytest.mark.parametrize("patch_grid", [(6, 6, 6, 6), (6, 6, 6, 6, ()), (6, 6, 0, 6, 6)])
def test_grids_that_do_not_fit_the_levels_are_refused(patch_grid: Any) -> None:
    with pytest.raises(ValueError, match="patch_grid must be one number, or one or several for each of five levels"):
        small(TSRLNet, patch_grid=patch_grid)


def test_coarse_residual_looks_at_the_last_grid_of_the_deepest_level() -> None:
    net = small(TSRLNet, patch_grid=(6, 6, 6, 6, (3, 6)), residual="coarse").eval()
    taken: list[torch.Tensor] = []
    for level in net.decoder:
        level.residual.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[2]))
    with torch.no_grad():
        net(stacks())
    assert [attention.shape for attention in taken] == [(1, 1, 6, 6)] * 4


def test_several_classes_count_as_found_when_any_of_them_is() -> None:
    """Side logits of one class high everywhere switch reverse attention off, whatever the others say."""
    net = small(TSRLNet, residual="reverse", out_channels=2).eval()
    level = net.decoder[3]
    x, skip = torch.randn(1, 16, 8, 8), torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        level.side[1].weight.zero_()
        level.side[1].bias.copy_(torch.tensor([-50.0, 50.0]))
        features, side = level(x, skip, torch.zeros(1, 1, 6, 6))
        assert torch.equal(side, torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 16, 16))
        expected = level.conv(torch.cat([torch.zeros_like(skip), level.up(x)], dim=1))
    torch.testing.assert_close(features, expected)
