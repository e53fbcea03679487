"""The networks' parts against values worked out by hand or with numpy: attention, fusion, upsampling, residual."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from bundle.networks.attention import CoarsePatchAttention, MixedPatchAttention, PixelAttention
from bundle.networks.blocks import (
    ChannelProjection,
    ConvBlock,
    MultiScaleConvolution,
    VolumeConvolution,
    slices_as_channels,
)
from bundle.networks.fusion import CrossDimensionFusion, Fusion, SliceProjection, SqueezeExcitationFusion
from bundle.networks.residual import CoarseResidual, ReverseAttention

Array = np.ndarray


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def prelu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal(actual: torch.Tensor, expected: Array) -> None:
    np.testing.assert_allclose(array(actual), expected, rtol=1e-4, atol=1e-5)


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and running statistic away from its start, so that none of them can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.8 + 0.1)
            tensor.mul_(1 - 2 * (torch.arange(tensor.numel()).view(tensor.shape) % 3 == 0) * (tensor.dim() > 1))
    return module.eval()


# --- attention -------------------------------------------------------------------------------------------------------


def patch_scores(features: Array, attention: CoarsePatchAttention) -> Array:
    """Equations 3.1-3.3: channel mean, mean of each patch, two linear layers, sigmoid."""
    grid = attention.grid
    batch, _, height, width = features.shape
    h, w = height // grid, width // grid
    descriptor = np.zeros((batch, grid * grid))
    for row, column in product(range(grid), range(grid)):
        patch = features[:, :, row * h : (row + 1) * h, column * w : (column + 1) * w]
        descriptor[:, row * grid + column] = patch.mean(axis=(1, 2, 3))
    first, activation, second = attention.relate
    hidden = prelu(descriptor @ array(first.weight).T, activation.weight.item())
    return sigmoid(hidden @ array(second.weight).T).reshape(batch, 1, grid, grid)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (24, 36)])
def test_patch_attention_scores_and_features_are_the_thesis_formula(height: int, width: int) -> None:
    attention = randomize(CoarsePatchAttention())
    x = random(2, 5, height, width)
    attended, [scores] = attention(x)
    expected = patch_scores(array(x), attention)
    assert_equal(scores, expected)
    nearest = expected.repeat(height // 6, axis=2).repeat(width // 6, axis=3)  # eq. 3.4
    assert_equal(attended, nearest * array(x) + array(x))


def test_patch_attention_scores_one_bright_patch_in_row_major_order() -> None:
    """Patch (row 1, column 4) is number 10; layers that copy it make it the one with a score above a half.

    The channel mean of the bright patch is (3 + 9) / 2 = 6, its score sigmoid(6); all others have sigmoid(0) = 0.5.
    """
    attention = CoarsePatchAttention()
    with torch.no_grad():
        for linear in (attention.relate[0], attention.relate[2]):
            linear.weight.zero_()
        attention.relate[0].weight[0, 10] = 1
        attention.relate[2].weight[10, 0] = 1
    x = torch.zeros(1, 2, 12, 12)
    x[0, 0, 2:4, 8:10] = 3
    x[0, 1, 2:4, 8:10] = 9
    attended, [scores] = attention(x)
    expected = np.full((1, 1, 6, 6), 0.5)
    expected[0, 0, 1, 4] = sigmoid(np.array(6.0))
    assert_equal(scores, expected)
    assert attended[0, 0, 3, 9].item() == pytest.approx(3 * (1 + 0.9975274), abs=1e-5)
    assert attended[0, 1, 2, 8].item() == pytest.approx(9 * (1 + 0.9975274), abs=1e-5)
    assert attended[0, :, :2].abs().max() == 0


def test_patch_attention_at_a_size_the_grid_does_not_divide_keeps_the_grid() -> None:
    """At 7 pixels for 6 patches neighbours share a pixel: patch k pools rows floor(7k/6) to ceil(7(k+1)/6)."""
    attention = randomize(CoarsePatchAttention())
    x = random(1, 3, 7, 7)
    mean = array(x).mean(axis=1)[0]
    starts, ends = [7 * k // 6 for k in range(6)], [-(-7 * (k + 1) // 6) for k in range(6)]
    descriptor = np.array([mean[starts[i] : ends[i], starts[j] : ends[j]].mean() for i in range(6) for j in range(6)])
    # Six patches of one value each give the same scores as the descriptor laid out on 6 x 6 pixels.
    _, [expected] = attention(torch.from_numpy(descriptor.reshape(1, 1, 6, 6)).float())
    attended, [scores] = attention(x)
    torch.testing.assert_close(scores, expected)
    assert attended.shape == x.shape


def test_patch_scores_stay_float32_and_off_0_and_1_in_bfloat16() -> None:
    """Descriptor 20 in every patch, layers that copy it: sigmoid(12) is 1 in bfloat16 but not in float32."""
    attention = CoarsePatchAttention()
    with torch.no_grad():
        attention.relate[0].weight.zero_()
        attention.relate[2].weight.zero_()
        attention.relate[0].weight[0, 0] = 1
        attention.relate[2].weight[:, 0] = 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended, [scores] = attention(torch.full((1, 2, 12, 12), 12.0, dtype=torch.bfloat16))
    assert torch.sigmoid(torch.tensor(12.0, dtype=torch.bfloat16)) == 1
    assert scores.dtype == torch.float32
    assert scores.max() < 1
    assert attended.dtype == torch.bfloat16


def test_mixed_patch_attention_is_the_mean_of_its_grids_each_by_the_thesis_formula() -> None:
    attention = randomize(MixedPatchAttention((3, 6)))
    x = random(2, 5, 12, 24)
    attended, scores = attention(x)
    expected = [patch_scores(array(x), each) for each in attention.attentions]
    for found, right in zip(scores, expected, strict=True):
        assert_equal(found, right)
    coarse, fine = (right.repeat(12 // len(right[0, 0]), axis=2) for right in expected)
    coarse, fine = (rows.repeat(24 // rows.shape[3], axis=3) for rows in (coarse, fine))
    assert_equal(attended, (coarse + fine) / 2 * array(x) + array(x))


def test_pixel_attention_is_a_weighted_channel_sum_through_a_sigmoid() -> None:
    attention = randomize(PixelAttention(3))
    x = random(2, 3, 5, 4)
    attended, [scores] = attention(x)
    weight, bias = array(attention.score.weight).reshape(3), attention.score.bias.item()
    expected = sigmoid(np.einsum("bchw,c->bhw", array(x), weight) + bias)[:, None]
    assert_equal(scores, expected)
    assert_equal(attended, expected * array(x) + array(x))


# --- fusion ----------------------------------------------------------------------------------------------------------


def conv3x3(x: Array, conv: nn.Conv2d) -> Array:
    """Cross-correlation with zero padding, one output pixel at a time."""
    weight, bias = array(conv.weight), array(conv.bias)
    batch, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((batch, weight.shape[0], height, width))
    for row, column in product(range(height), range(width)):
        window = padded[:, :, row : row + 3, column : column + 3]
        result[:, :, row, column] = np.einsum("bchw,ochw->bo", window, weight) + bias
    return result


def batch_norm(x: Array, norm: nn.BatchNorm2d) -> Array:
    shape = (1, -1, 1, 1)
    mean, variance = array(norm.running_mean).reshape(shape), array(norm.running_var).reshape(shape)
    scale, shift = array(norm.weight).reshape(shape), array(norm.bias).reshape(shape)
    return (x - mean) / np.sqrt(variance + norm.eps) * scale + shift


def projection(volume: Array, project: SliceProjection) -> Array:
    """Thesis 3.3: the 3D features' channels to one, its slices to channels, a 3x3 convolution, [batch norm,] ReLU."""
    to_one = project[0]
    one = np.einsum("bchws,c->bshw", volume, array(to_one.weight).reshape(-1)) + to_one.bias.item()
    plane = conv3x3(one, project[2])
    if isinstance(project[3], nn.BatchNorm2d):
        plane = batch_norm(plane, project[3])
    return np.maximum(plane, 0)


def inputs(channels: int = 16, slices: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct sizes on every axis: 3D features and 2D features of two samples."""
    return random(2, channels, 5, 4, slices, seed=1), random(2, channels, 5, 4, seed=2)


@pytest.mark.parametrize("norm", [True, False])
def test_slice_projection_equals_its_formula(norm: bool) -> None:
    volume, _ = inputs(channels=3)
    project = randomize(SliceProjection(3, 2, norm=norm))
    assert_equal(project(volume), projection(array(volume), project))


@pytest.mark.parametrize("picked", [0, 1])
def test_slices_become_the_channels_of_the_projection_in_their_order(picked: int) -> None:
    """A 1x1x1 convolution that keeps 3D channel 2, a 3x3 convolution that copies the picked slice's centre."""
    project = SliceProjection(3, 2, norm=False)
    with torch.no_grad():
        for parameter in project.parameters():
            parameter.zero_()
        project[0].weight[0, 2] = 1
        project[2].weight[:, picked, 1, 1] = 1
    volume, _ = inputs(channels=3)
    volume = volume.abs()
    expected = volume[:, 2, :, :, picked].unsqueeze(1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(project(volume), expected)


def test_add_and_concatenate_fusion() -> None:
    volume, plane = inputs()
    add = randomize(Fusion(16, 2))
    assert add.out_channels == 16
    assert_equal(add(volume, plane), projection(array(volume), add.project) + array(plane))
    concatenate = randomize(Fusion(16, 2, concatenate=True))
    assert concatenate.out_channels == 32
    expected = np.concatenate([projection(array(volume), concatenate.project), array(plane)], axis=1)
    assert_equal(concatenate(volume, plane), expected)


def test_squeeze_excitation_weighs_each_map_by_its_own_channel_means() -> None:
    volume, plane = inputs(channels=32)
    fusion = randomize(SqueezeExcitationFusion(32, 2))
    assert fusion.excite_plane[0].out_features == 2  # 32 / 16

    def excited(features: Array, layers: nn.Sequential) -> Array:
        hidden = np.maximum(features.mean(axis=(2, 3)) @ array(layers[0].weight).T, 0)
        return features * sigmoid(hidden @ array(layers[2].weight).T)[:, :, None, None]

    expected = excited(projection(array(volume), fusion.project), fusion.excite_volume)
    expected += excited(array(plane), fusion.excite_plane)
    assert_equal(fusion(volume, plane), expected)


@pytest.mark.parametrize("concatenate", [False, True])
@pytest.mark.parametrize("reduction", [4, 8])
def test_cross_dimension_fusion_weighs_both_maps_by_the_means_of_both(concatenate: bool, reduction: int) -> None:
    volume, plane = inputs()
    fusion = randomize(CrossDimensionFusion(16, 2, reduction=reduction, concatenate=concatenate))
    assert fusion.weigh_plane[0].out_features == 16 // reduction
    projected = projection(array(volume), fusion.project)
    descriptor = np.concatenate([projected.mean(axis=(2, 3)), array(plane).mean(axis=(2, 3))], axis=1)  # eq. 3.5

    def weights(layers: nn.Sequential) -> Array:  # eq. 3.6, 3.7
        hidden = prelu(descriptor @ array(layers[0].weight).T, layers[1].weight.item())
        return sigmoid(hidden @ array(layers[2].weight).T)[:, :, None, None]

    weighted = [projected * weights(fusion.weigh_volume), array(plane) * weights(fusion.weigh_plane)]  # eq. 3.8
    expected = np.concatenate(weighted, axis=1) if concatenate else sum(weighted)
    assert_equal(fusion(volume, plane), expected)
    assert fusion.out_channels == expected.shape[1]


# --- upsampling and blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [(3,), (9, 9, 9, 9), (3, 5, 7, 9)])
@pytest.mark.parametrize(("transposed", "factor"), [(True, 2), (False, 1)])
def test_multi_scale_convolution_doubles_the_size_only_if_transposed(
    kernels: tuple[int, ...], transposed: bool, factor: int
) -> None:
    block = MultiScaleConvolution(8, kernels, transposed=transposed).eval()
    assert block(random(2, 8, 5, 6)).shape == (2, 8, 5 * factor, 6 * factor)


@pytest.mark.parametrize("transposed", [True, False])
def test_each_branch_spreads_a_pixel_over_its_own_kernel_around_the_same_place(transposed: bool) -> None:
    """All weights 1: one bright pixel becomes a square of k x k ones, the branches in the order of the kernel sizes.

    A pixel at (10, 12) of the input lies at (20, 24) of an output of twice the size.
    """
    kernels = (3, 5, 7, 9)
    block = MultiScaleConvolution(4, kernels, transposed=transposed).eval()
    for branch in block.branches:
        nn.init.ones_(branch.conv.weight)
        nn.init.zeros_(branch.conv.bias)
    x = torch.zeros(1, 4, 20, 24)
    x[0, 1, 10, 12] = 1
    factor = 2 if transposed else 1
    expected = torch.zeros(1, 4, 20 * factor, 24 * factor)
    for channel, size in enumerate(kernels):
        top, left = 10 * factor - size // 2, 12 * factor - size // 2
        expected[0, channel, top : top + size, left : left + size] = 1 / (1 + 1e-5) ** 0.5  # batch norm's epsilon
    torch.testing.assert_close(block(x), expected)


def test_branch_is_convolution_then_norm_then_relu_then_dropout() -> None:
    branch = MultiScaleConvolution(4, (3,), dropout=0.25, transposed=True).branches[0]
    layers = [module for module in branch.modules() if next(module.children(), None) is None]
    assert [type(layer) for layer in layers] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout]
    assert layers[0].bias is not None
    assert layers[3].p == 0.25


def test_conv_block_is_twice_convolution_norm_relu() -> None:
    block = randomize(ConvBlock(2, 3, 4))
    x = random(2, 3, 5, 4)
    expected = array(x)
    for layer in (block.conv_0, block.conv_1):
        expected = np.maximum(batch_norm(conv3x3(expected, layer.conv), layer.adn.N), 0)
    assert_equal(block(x), expected)


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("in_channels", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_3d_convolution_has_the_values_and_gradients_of_a_plain_one(
    depth: int, in_channels: int, scripted: bool
) -> None:
    conv = ConvBlock(3, in_channels, 3).conv_0.conv
    conv = torch.jit.script(conv) if scripted else conv
    plain = nn.Conv3d(in_channels, 3, kernel_size=3, padding=1)
    plain.load_state_dict(conv.state_dict())
    given = [random(2, in_channels, 6, 5, depth).requires_grad_() for _ in range(2)]
    outputs = [conv(given[0]), plain(given[1])]
    for output in outputs:
        output.backward(random(*output.shape, seed=3))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(given[0].grad, given[1].grad)
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad)
    torch.testing.assert_close(conv.bias.grad, plain.bias.grad)


@pytest.mark.parametrize(
    "make", [lambda: VolumeConvolution(16, 32), lambda: VolumeConvolution(1, 32), lambda: ChannelProjection(16)]
)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_3d_convolution_has_the_right_gradients_in_bfloat16(depth: int, make: Callable[[], nn.Conv3d]) -> None:
    conv = make()
    gradients = []
    for enabled in (False, True):
        conv.zero_grad()
        x = random(2, conv.in_channels, 24, 24, depth).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = conv(x)
        output.backward(random(*output.shape, seed=3).to(output.dtype))
        gradients.append((conv.weight.grad.clone(), x.grad))
    for expected, actual in zip(*gradients, strict=True):
        assert (actual - expected).norm() < 0.02 * expected.norm()


def test_projection_to_one_channel_is_a_1x1x1_convolution() -> None:
    project, plain = ChannelProjection(5), nn.Conv3d(5, 1, kernel_size=1)
    plain.load_state_dict(project.state_dict())
    x = random(2, 5, 6, 7, 3)
    torch.testing.assert_close(project(x), plain(x))


def test_channels_last_volumes_become_planes_and_volumes_again_without_a_copy() -> None:
    volume = random(2, 8, 6, 5, 4).contiguous(memory_format=torch.channels_last_3d)
    planes = slices_as_channels(volume)
    assert planes.data_ptr() == volume.data_ptr()
    assert planes.is_contiguous(memory_format=torch.channels_last)
    for s in range(4):
        assert torch.equal(planes[:, 8 * s : 8 * s + 8], volume[..., s])
    assert VolumeConvolution(8, 8)(volume).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        ((3, 5, 7), "8 channels cannot be shared by 3 kernel sizes equally"),
        ((3, 4), r"kernel_sizes must be odd, got \(3, 4\)"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(kernels: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiScaleConvolution(8, kernels)


# --- residual --------------------------------------------------------------------------------------------------------


def test_coarse_residual_at_one_pixel_by_hand() -> None:
    """C = 3, P = 0.25, A5 = 0.5: 3 * 3 * (1 - 0.25) + 3 * 0.5 = 6.75 + 1.5 = 8.25; reverse attention alone 6.75."""
    skip, found, attention = (torch.full((1, 1, 1, 1), value) for value in (3.0, 0.25, 0.5))
    assert CoarseResidual()(skip, found, attention).item() == 8.25
    assert ReverseAttention()(skip, found, attention).item() == 6.75


def test_coarse_residual_equals_its_formula_with_a_nearest_map() -> None:
    skip, found, attention = random(2, 3, 12, 18), torch.sigmoid(random(2, 1, 12, 18)), random(2, 1, 6, 6).sigmoid()
    c, p = array(skip), array(found)
    a5 = array(attention).repeat(2, axis=2).repeat(3, axis=3)
    assert_equal(CoarseResidual()(skip, found, attention), c * c * (1 - p) + c * a5)
    assert_equal(ReverseAttention()(skip, found, attention), c * c * (1 - p))


def test_residuals_keep_the_dtype_of_the_skip() -> None:
    """Patch scores are float32 also where the skip is bfloat16."""
    skip = random(1, 2, 12, 12).bfloat16()
    handed_over = CoarseResidual()(skip, torch.full((1, 1, 12, 12), 0.5).bfloat16(), torch.full((1, 1, 6, 6), 0.5))
    assert handed_over.dtype == torch.bfloat16
