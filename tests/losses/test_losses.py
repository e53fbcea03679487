"""The losses against plain numpy written from the formulas, at their edges, and in the totals of the two networks."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
from torch import nn

from bundle.losses import AGMRLoss, EnhancedMixingLoss, PatchPriorLoss, SobelLoss, TargetAwareLoss, TSRLLoss
from bundle.networks import NetworkOutput

Array = np.ndarray


# --- the formulas in float64, one number at a time -------------------------------------------------------------------


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def focus_map(g: Array, beta: int) -> Array:
    """Equation 4.4 on one channel: every pixel asks its own window, which begins at a multiple of beta."""
    focus = np.zeros_like(g)
    for index in np.ndindex(*g.shape):
        window = tuple(slice(i // beta * beta, i // beta * beta + beta) for i in index)
        focus[index] = 1.0 if g[window].sum() > 0 else 0.0
    return focus


def focal(p: Array, g: Array, weight: Array, gamma: float) -> float:
    """Equation 4.6 on one channel, given the weights."""
    total = 0.0
    for index in np.ndindex(*g.shape):
        p_t = p[index] if g[index] == 1 else 1 - p[index]
        total += -weight[index] * (1 - p_t) ** gamma * log(p_t)
    return total / g.size


def dice(p: Array, g: Array, smooth_nr: float = 1.0, smooth_dr: float = 1.0) -> float:
    return (2 * (p * g).sum() + smooth_nr) / ((p * p).sum() + (g * g).sum() + smooth_dr)


def per_channel(
    logits: Array, g: Array, loss: Callable[[Array, Array, float], float], batch: bool = True, **smooth: float
) -> Array:
    """``loss(p, g, D)`` of each sample and channel, ``(B, C)``; D over the batch or over the sample."""
    p = sigmoid(logits)
    result = np.zeros(g.shape[:2])
    for b, c in np.ndindex(*g.shape[:2]):
        coefficient = dice(p[:, c], g[:, c], **smooth) if batch else dice(p[b, c], g[b, c], **smooth)
        result[b, c] = loss(p[b, c], g[b, c], coefficient)
    return result


def target_aware(
    logits: Array, g: Array, beta: int = 4, alpha: float = 0.75, gamma: float = 2.0, **options: Any
) -> Array:
    def loss(p: Array, g: Array, coefficient: float) -> float:
        focus = focus_map(g, beta)
        return focal(p, g, focus * alpha + (1 - focus) * (1 - alpha), gamma) + 1 - coefficient

    return per_channel(logits, g, loss, **options)


def enhanced_mixing(logits: Array, g: Array, alpha: float = 0.75, gamma: float = 2.0, **options: Any) -> Array:
    def loss(p: Array, g: Array, coefficient: float) -> float:
        return focal(p, g, np.where(g == 1, alpha, 1 - alpha), gamma) - log(coefficient)

    return per_channel(logits, g, loss, **options)


def sobel_magnitude(image: Array) -> Array:
    """``(H, W)``; the border repeated, 1e-6 under the root."""
    derive = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    padded = np.pad(image, 1, mode="edge")
    magnitude = np.zeros_like(image)
    for row, column in np.ndindex(*image.shape):
        window = padded[row : row + 3, column : column + 3]
        magnitude[row, column] = np.sqrt((window * derive).sum() ** 2 + (window * derive.T).sum() ** 2 + 1e-6)
    return magnitude


def sobel(logits: Array, g: Array) -> Array:
    """Distance at each pixel, ``(B, C, H, W)``."""
    distance = np.zeros_like(g)
    for b, c in np.ndindex(*g.shape[:2]):
        distance[b, c] = np.abs(sobel_magnitude(sigmoid(logits[b, c])) - sobel_magnitude(g[b, c]))
    return distance


def patch_prior(scores: list[Array], g: Array) -> float:
    """Sum over levels of the mean cross entropy; g is ``(B, C, H, W)`` at a size that the grid divides."""
    total = 0.0
    for level in scores:
        batch, _, rows, columns = level.shape
        height, width = g.shape[2] // rows, g.shape[3] // columns
        entropy = 0.0
        for b, row, column in product(range(batch), range(rows), range(columns)):
            patch = g[b, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            score = level[b, 0, row, column]
            entropy -= log(score) if patch.max() > 0 else log(1 - score)
        total += entropy / level.size
    return total


def bilinear(image: Array, height: int, width: int) -> Array:
    """``(H, W)`` to another size; pixels are areas, and the border is repeated."""
    result = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        value = 0.0
        y = max((row + 0.5) * image.shape[0] / height - 0.5, 0)
        x = max((column + 0.5) * image.shape[1] / width - 0.5, 0)
        for i, j in product((0, 1), (0, 1)):
            nearest = image[min(int(y) + i, image.shape[0] - 1), min(int(x) + j, image.shape[1] - 1)]
            value += nearest * (y % 1 if i else 1 - y % 1) * (x % 1 if j else 1 - x % 1)
        result[row, column] = value
    return result


# --- samples ---------------------------------------------------------------------------------------------------------


def sample(*shape: int, seed: int = 0, lesions: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and a sparse mask; the first sample of two or more holds no lesion."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, generator=generator) * 2
    mask = (torch.rand(*shape, generator=generator) < lesions).float()
    if shape[0] > 1:
        mask[0] = 0
    return logits, mask


def arrays(*tensors: torch.Tensor) -> list[Array]:
    return [tensor.double().numpy() for tensor in tensors]


def network_output(batch: int = 2, size: int = 24, seed: int = 3) -> tuple[NetworkOutput, torch.Tensor]:
    """Return a network's output in train(), with sides at 1/8 to 1/1 and five grids of scores, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    logits, mask = sample(batch, 1, size, size, seed=seed, lesions=0.05)
    sides = [torch.randn(batch, 1, size // f, size // f, generator=generator) for f in (8, 4, 2, 1)]
    scores = [torch.rand(batch, 1, 6, 6, generator=generator) * 0.98 + 0.01 for _ in range(5)]
    return NetworkOutput(logits, sides, scores), mask


REGION_LOSSES = [TargetAwareLoss, EnhancedMixingLoss]
MASK_LOSSES = [*REGION_LOSSES, SobelLoss]


# --- values ----------------------------------------------------------------------------------------------------------


def half_sure() -> tuple[torch.Tensor, torch.Tensor]:
    """Logit 0 on 4 x 4 pixels, one of them lesion."""
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 2] = 1
    return torch.zeros(1, 1, 4, 4), mask


def test_target_aware_loss_by_hand() -> None:
    """p = p_t = 1/2 everywhere, so each pixel has -(1/2)^2 log(1/2) = log(2) / 4 before its weight.

    With beta 2 the lesion's window holds 4 of the 16 pixels: weights 4 * 3/4 + 12 * 1/4 = 6.
    D = (2 * 1/2 + 1) / (16 * 1/4 + 1 + 1) = 2/6. TAL = 6/16 * log(2) / 4 + 1 - 1/3 = 0.0649826 + 0.6666667.
    """
    assert TargetAwareLoss(beta=2)(*half_sure()).item() == pytest.approx(0.7316492, abs=1e-6)


def test_enhanced_mixing_loss_by_hand() -> None:
    """As above, but only the lesion pixel has 3/4: weights 3/4 + 15 * 1/4 = 4.5.

    EML = 4.5/16 * log(2) / 4 - log(1/3) = 0.0487370 + 1.0986123.
    """
    assert EnhancedMixingLoss()(*half_sure()).item() == pytest.approx(1.1473493, abs=1e-6)


def test_sobel_loss_by_hand() -> None:
    """A flat prediction has magnitude 0.001 (the root of 1e-6), an edge between columns 1 and 2 has 4 on both sides.

    Of 4 columns two are off by 3.999: mean 2 * 3.999 / 4 = 1.9995.
    """
    mask = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    assert SobelLoss()(torch.zeros(1, 1, 4, 4), mask).item() == pytest.approx(1.9995, abs=1e-5)


def test_patch_prior_loss_by_hand() -> None:
    """2 x 2 patches, lesion in the lower left one alone, scored 0.8; the others 0.5, 0.5 and 0.2.

    -(log 0.8 + log 0.5 + log 0.5 + log 0.8) / 4 = (2 * 0.2231436 + 2 * 0.6931472) / 4 = 0.4581454; two levels, twice.
    """
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 7, 0] = 1
    scores = torch.tensor([[0.5, 0.2], [0.8, 0.5]]).view(1, 1, 2, 2)
    assert PatchPriorLoss()([scores], mask).item() == pytest.approx(0.4581454, abs=1e-6)
    assert PatchPriorLoss()([scores, scores], mask).item() == pytest.approx(2 * 0.4581454, abs=1e-6)


@pytest.mark.parametrize("beta", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(2, 1, 8, 16), (2, 1, 10, 13), (2, 2, 10, 13), (2, 1, 5, 9, 6), (3, 1, 21)])
def test_target_aware_loss_equals_its_formula(shape: tuple[int, ...], beta: int) -> None:
    logits, mask = sample(*shape)
    expected = target_aware(*arrays(logits, mask), beta=beta)
    actual = TargetAwareLoss(beta=beta, reduction="none")(logits, mask)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", REGION_LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("batch", [True, False])
def test_region_losses_equal_their_formulas_at_other_arguments(loss: Any, gamma: float, batch: bool) -> None:
    logits, mask = sample(3, 2, 10, 13)
    smooth = {"smooth_nr": 0.5, "smooth_dr": 0.25}
    formula = target_aware if loss is TargetAwareLoss else enhanced_mixing
    expected = formula(*arrays(logits, mask), alpha=0.3, gamma=gamma, batch=batch, **smooth)
    actual = loss(alpha=0.3, gamma=gamma, batch=batch, reduction="none", **smooth)(logits, mask)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 10, 13), (2, 3, 7, 5)])
def test_enhanced_mixing_loss_equals_its_formula(shape: tuple[int, ...]) -> None:
    logits, mask = sample(*shape)
    expected = enhanced_mixing(*arrays(logits, mask))
    np.testing.assert_allclose(EnhancedMixingLoss(reduction="none")(logits, mask).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 10, 13), (2, 3, 7, 5)])
def test_sobel_loss_equals_its_formula(shape: tuple[int, ...]) -> None:
    logits, mask = sample(*shape)
    expected = sobel(*arrays(logits, mask))
    np.testing.assert_allclose(SobelLoss(reduction="none")(logits, mask).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_patch_prior_loss_equals_its_formula(channels: int) -> None:
    output, _ = network_output()
    _, mask = sample(2, channels, 24, 24, lesions=0.01)
    assert 0 < mask.sum() < mask.numel()
    expected = patch_prior(arrays(*output.patch_scores), mask.numpy())
    assert PatchPriorLoss()(output.patch_scores, mask).item() == pytest.approx(expected, rel=1e-5)


def test_patch_prior_has_the_grid_of_each_map() -> None:
    """One voxel of lesion at row 7, column 20 of 24 x 24: patch (0, 2) of 3 x 3, and (3, 10) of 12 x 12."""
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 7, 20] = 1
    coarse, fine = torch.full((1, 1, 3, 3), 0.25), torch.full((1, 1, 12, 12), 0.25)
    coarse[..., 0, 2] = fine[..., 3, 10] = 0.5
    expected = (log(2) - 8 * log(0.75)) / 9 + (log(2) - 143 * log(0.75)) / 144
    assert PatchPriorLoss()([coarse, fine], mask).item() == pytest.approx(expected, rel=1e-5)


def test_patch_prior_at_a_size_the_grid_does_not_divide_has_the_windows_of_the_attention() -> None:
    """Of 7 rows for 6 patches the first two patches share row 1, as CPA's pooling does: one pixel marks four patches.

    Scored 0.9 there and 0.1 elsewhere, every patch is right with 0.9.
    """
    mask = torch.zeros(1, 1, 7, 7)
    mask[0, 0, 1, 1] = 1
    scores = torch.full((1, 1, 6, 6), 0.1)
    scores[0, 0, :2, :2] = 0.9
    assert PatchPriorLoss()([scores], mask).item() == pytest.approx(-log(0.9), rel=1e-5)


def test_agmr_loss_equals_its_formula() -> None:
    output, mask = network_output()
    logits, g = arrays(output.logits, mask)
    expected = {
        "mixing": enhanced_mixing(logits, g, alpha=0.6, gamma=1.5).mean(),
        "sobel": sobel(logits, g).mean(),
        "patch": 0.2 * patch_prior(arrays(*output.patch_scores), g),
    }
    loss = AGMRLoss(alpha=0.6, gamma=1.5, patch_weight=0.2)
    parts = {name: part.item() for name, part in loss.parts(output, mask).items()}
    assert parts == pytest.approx(expected, rel=1e-5)
    assert loss(output, mask).item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_tsrl_loss_equals_its_formula_with_sides_upsampled_to_the_label() -> None:
    output, mask = network_output()
    logits, g = arrays(output.logits, mask)
    side = 0.0
    for level in arrays(*output.side_logits):
        upsampled = np.stack([bilinear(image[0], 24, 24)[None] for image in level])
        side += target_aware(upsampled, g).mean()
    expected = {
        "final": target_aware(logits, g).mean(),
        "side": 0.5 * side,
        "patch": 0.2 * patch_prior(arrays(*output.patch_scores), g),
    }
    loss = TSRLLoss(side_weight=0.5, patch_weight=0.2)
    parts = {name: part.item() for name, part in loss.parts(output, mask).items()}
    assert parts == pytest.approx(expected, rel=1e-5)
    assert loss(output, mask).item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_totals_default_to_the_thesis_weights() -> None:
    """Equations 3.16 and 4.8: patch weight 0.15, side weight 1, alpha 0.75, gamma 2, beta 4."""
    output, mask = network_output()
    logits, g = arrays(output.logits, mask)
    patch = 0.15 * patch_prior(arrays(*output.patch_scores), g)
    agmr = enhanced_mixing(logits, g, alpha=0.75, gamma=2).mean() + sobel(logits, g).mean() + patch
    assert AGMRLoss()(output, mask).item() == pytest.approx(agmr, rel=1e-5)
    parts, unweighted = TSRLLoss().parts(output, mask), TSRLLoss(side_weight=0.25).parts(output, mask)
    assert parts["final"].item() == pytest.approx(target_aware(logits, g, beta=4, alpha=0.75, gamma=2).mean(), rel=1e-5)
    assert parts["side"].item() == pytest.approx(4 * unweighted["side"].item(), rel=1e-5)
    assert parts["patch"].item() == pytest.approx(patch, rel=1e-5)


# --- gradients and stability -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(TargetAwareLoss(), id="target-aware"),
        pytest.param(TargetAwareLoss(gamma=0), id="target-aware, gamma 0"),
        pytest.param(TargetAwareLoss(gamma=0.5), id="target-aware, gamma 0.5"),
        pytest.param(TargetAwareLoss(batch=False), id="target-aware, per sample"),
        pytest.param(EnhancedMixingLoss(), id="enhanced mixing"),
        pytest.param(EnhancedMixingLoss(gamma=0.5), id="enhanced mixing, gamma 0.5"),
        pytest.param(SobelLoss(), id="sobel"),
    ],
)
def test_gradient_equals_the_central_difference(loss: nn.Module) -> None:
    logits, mask = sample(2, 1, 10, 13)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, mask), logits)
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        direction = torch.randn(logits.shape, generator=generator)
        direction = direction / direction.norm()
        step = 0.05
        with torch.no_grad():
            ahead, behind = loss(logits + step * direction, mask), loss(logits - step * direction, mask)
        slope = (ahead - behind).item() / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=0.02, abs=1e-5)


def test_patch_prior_gradient_equals_its_formula() -> None:
    """d/ds of -log s is -1/s in a lesion's patch and 1/(1 - s) elsewhere, over the number of scores."""
    output, mask = network_output()
    scores = output.patch_scores[0].requires_grad_()
    (gradient,) = torch.autograd.grad(PatchPriorLoss()([scores], mask), scores)
    prior = mask.view(2, 1, 6, 4, 6, 4).amax(dim=(3, 5))
    expected = torch.where(prior == 1, -1 / scores, 1 / (1 - scores)) / scores.numel()
    torch.testing.assert_close(gradient, expected.detach())


@pytest.mark.parametrize("make", [TargetAwareLoss, EnhancedMixingLoss])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("lesions", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_value_and_gradient_are_finite_at_huge_logits(make: Any, gamma: float, lesions: float, scale: float) -> None:
    """Right, wrong and both, on empty, mixed and full masks."""
    _, mask = sample(1, 1, 10, 13, lesions=lesions)
    for logits in (torch.full(mask.shape, scale), scale * (2 * mask - 1), scale * torch.ones_like(mask).tril()):
        logits.requires_grad_()
        value = make(gamma=gamma)(logits, mask)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("lesions", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1e4, -1e4, 0.0])
def test_sobel_value_and_gradient_are_finite_at_huge_logits_and_flat_images(lesions: float, scale: float) -> None:
    _, mask = sample(1, 1, 10, 13, lesions=lesions)
    logits = torch.full(mask.shape, scale, requires_grad=True)
    value = SobelLoss()(logits, mask)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("make", REGION_LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_confidently_missed_lesion_keeps_a_gradient(make: Any, gamma: float) -> None:
    """A sigmoid followed by a log would be 0 * infinity or flat at a logit of -1e4."""
    mask = torch.ones(1, 1, 8, 8)
    logits = torch.full((1, 1, 8, 8), -1e4, requires_grad=True)
    (gradient,) = torch.autograd.grad(make(gamma=gamma)(logits, mask), logits)
    torch.testing.assert_close(gradient, torch.full_like(gradient, -0.75 / 64))


def test_patch_scores_of_exactly_0_and_1_cost_a_finite_amount() -> None:
    scores = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2).requires_grad_()
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    value = PatchPriorLoss()([scores], mask)
    (gradient,) = torch.autograd.grad(value, scores)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_bfloat16_autocast_gives_the_float32_value_in_float32(make: Any) -> None:
    logits, mask = sample(2, 1, 96, 96)
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = make()(half, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(make()(half.float(), mask).item(), rel=1e-5)
    assert value.item() == pytest.approx(make()(logits, mask).item(), rel=1e-2)


@pytest.mark.parametrize("loss", [AGMRLoss(), TSRLLoss()])
def test_bfloat16_autocast_gives_the_float32_total_in_float32(loss: Any) -> None:
    output, mask = network_output()
    half = NetworkOutput(
        output.logits.bfloat16(), [side.bfloat16() for side in output.side_logits], output.patch_scores
    )
    exact = NetworkOutput(half.logits.float(), [side.float() for side in half.side_logits], output.patch_scores)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(exact, mask).item(), rel=1e-5)


@pytest.mark.parametrize("make", MASK_LOSSES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_masks_of_any_dtype_count_the_same(make: Any, dtype: torch.dtype) -> None:
    logits, mask = sample(2, 1, 10, 13)
    assert make()(logits, mask.to(dtype)).item() == make()(logits, mask).item()


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_inputs_are_left_alone(make: Any) -> None:
    logits, mask = sample(2, 1, 10, 13)
    before = logits.clone(), mask.clone()
    make()(logits, mask)
    assert torch.equal(logits, before[0])
    assert torch.equal(mask, before[1])


# --- batches without lesion ------------------------------------------------------------------------------------------


def false_positives(pixels: int) -> torch.Tensor:
    """Logits -6 but for a row of ``pixels`` at 3."""
    logits = torch.full((2, 1, 12, 12), -6.0)
    logits.view(-1)[:pixels] = 3.0
    return logits


@pytest.mark.parametrize("make", [*MASK_LOSSES, lambda: AGMRLoss(), lambda: TSRLLoss()])
def test_false_positives_on_a_lesion_free_batch_cost_by_their_number(make: Any) -> None:
    empty = torch.zeros(2, 1, 12, 12)
    costs = [make()(false_positives(pixels), empty).item() for pixels in (0, 3, 6, 12)]
    assert costs == sorted(set(costs))
    assert costs[1] > 0


@pytest.mark.parametrize("make", [*REGION_LOSSES, lambda: AGMRLoss(), lambda: TSRLLoss()])
def test_every_false_positive_on_a_lesion_free_batch_is_pushed_down(make: Any) -> None:
    logits = false_positives(6).requires_grad_()
    (gradient,) = torch.autograd.grad(make()(logits, torch.zeros(2, 1, 12, 12)), logits)
    assert (gradient.view(-1)[:6] > 1e-4).all()


def test_target_aware_loss_on_a_lesion_free_batch_is_its_stated_formula() -> None:
    """``(1 - alpha) mean(p^gamma * -log(1 - p)) + 1 - smooth_nr / (sum p^2 + smooth_dr)``."""
    logits = sample(2, 1, 12, 12)[0]
    (p,) = arrays(torch.sigmoid(logits.double()))
    expected = 0.25 * (p**2 * -np.log(1 - p)).mean() + 1 - 1 / ((p * p).sum() + 1)
    assert TargetAwareLoss()(logits, torch.zeros(2, 1, 12, 12)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", [*MASK_LOSSES, lambda: AGMRLoss(), lambda: TSRLLoss()])
@pytest.mark.parametrize("lesions", [0.0, 0.1])
def test_a_perfect_prediction_costs_nothing(make: Any, lesions: float) -> None:
    _, mask = sample(2, 1, 12, 12, lesions=lesions)
    assert make()(1e4 * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_the_loss_of_probabilities_without_sigmoid_is_that_of_their_logits(make: Any) -> None:
    logits, mask = sample(2, 1, 10, 13)
    assert make(sigmoid=False)(torch.sigmoid(logits), mask).item() == pytest.approx(
        make(sigmoid=True)(logits, mask).item(), rel=1e-5
    )


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_probabilities_of_exactly_0_and_1_cost_a_finite_amount(make: Any) -> None:
    _, mask = sample(2, 1, 10, 13)
    probabilities = (1 - mask).requires_grad_()
    value = make(sigmoid=False)(probabilities, mask)
    (gradient,) = torch.autograd.grad(value, probabilities)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("make", "shape"), [(TargetAwareLoss, (3, 2)), (EnhancedMixingLoss, (3, 2))])
def test_reductions_of_region_losses_agree(make: Any, shape: tuple[int, int]) -> None:
    logits, mask = sample(3, 2, 10, 13)
    none = make(reduction="none")(logits, mask)
    assert none.shape == shape
    assert len(set(none.flatten().tolist())) == 6
    torch.testing.assert_close(make(reduction="mean")(logits, mask), none.mean())
    torch.testing.assert_close(make(reduction="sum")(logits, mask), none.sum())


def test_reductions_of_the_sobel_loss_agree() -> None:
    logits, mask = sample(3, 2, 10, 13)
    none = SobelLoss(reduction="none")(logits, mask)
    assert none.shape == logits.shape
    torch.testing.assert_close(SobelLoss(reduction="mean")(logits, mask), none.mean())
    torch.testing.assert_close(SobelLoss(reduction="sum")(logits, mask), none.sum())


REGION_ARGUMENTS: list[dict[str, Any]] = [
    {"include_background": False},
    {"sigmoid": False},
    {"alpha": 0.25},
    {"gamma": 1.0},
    {"smooth_nr": 0.5},
    {"smooth_dr": 0.5},
    {"batch": False},
    {"reduction": "sum"},
]


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        *((TargetAwareLoss, argument) for argument in [*REGION_ARGUMENTS, {"beta": 2}, {"beta": 1}]),
        *((EnhancedMixingLoss, argument) for argument in REGION_ARGUMENTS),
        *((SobelLoss, argument) for argument in ({"include_background": False}, {"sigmoid": False})),
        (SobelLoss, {"reduction": "sum"}),
    ],
    ids=str,
)
def test_each_argument_changes_the_value(make: Any, argument: dict[str, Any]) -> None:
    logits, mask = sample(3, 2, 10, 13, lesions=0.02)
    logits = torch.sigmoid(logits)  # also fit for sigmoid=False
    assert abs(make(**argument)(logits, mask).item() - make()(logits, mask).item()) > 1e-4


@pytest.mark.parametrize(
    ("loss", "changed"),
    [
        (AGMRLoss, {"alpha": 0.25}),
        (AGMRLoss, {"gamma": 1.0}),
        (AGMRLoss, {"patch_weight": 0.3}),
        (TSRLLoss, {"loss": TargetAwareLoss(beta=1)}),
        (TSRLLoss, {"side_weight": 0.5}),
        (TSRLLoss, {"patch_weight": 0.3}),
    ],
    ids=str,
)
def test_each_argument_of_a_total_changes_the_value(loss: Any, changed: dict[str, Any]) -> None:
    output, mask = network_output()
    assert abs(loss(**changed)(output, mask).item() - loss()(output, mask).item()) > 1e-4


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_class_indices_count_as_one_channel_per_class(make: Any) -> None:
    logits, _ = sample(2, 3, 10, 13)
    classes = torch.randint(0, 3, (2, 1, 10, 13), generator=torch.Generator().manual_seed(2))
    channels = torch.cat([(classes == k).float() for k in range(3)], dim=1)
    expected = make()(logits, channels).item()
    assert make(to_onehot_y=True)(logits, classes).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_without_background_the_first_channel_does_not_count(make: Any) -> None:
    logits, mask = sample(2, 3, 10, 13)
    expected = make()(logits[:, 1:], mask[:, 1:]).item()
    assert make(include_background=False)(logits, mask).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", REGION_LOSSES)
def test_per_sample_dice_makes_a_batch_the_mean_of_its_samples(make: Any) -> None:
    logits, mask = sample(3, 1, 10, 13)
    alone = [make()(logits[i : i + 1], mask[i : i + 1]).item() for i in range(3)]
    assert make(batch=False)(logits, mask).item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert abs(make(batch=True)(logits, mask).item() - sum(alone) / 3) > 1e-3


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MASK_LOSSES)
@pytest.mark.parametrize("shape", [(2, 1, 10, 12), (2, 2, 10, 13), (1, 1, 10, 13), (2, 1, 13), (2, 10, 13)])
def test_shapes_that_differ_are_refused_with_both_named(make: Any, shape: tuple[int, ...]) -> None:
    logits, _ = sample(2, 1, 10, 13)
    listed = ", ".join(str(size) for size in shape)
    with pytest.raises(ValueError, match=rf"prediction is \[2, 1, 10, 13\] and the target \[{listed}\]"):
        make()(logits, torch.zeros(shape))


@pytest.mark.parametrize("make", MASK_LOSSES)
@pytest.mark.parametrize(
    ("prediction", "target"),
    [((2, 1, 6, 6), (2, 1, 6, 6)), ((2, 3, 6, 6), (2, 3, 6, 6)), ((2, 3, 6, 6), (2, 6, 6))],
)
def test_class_indices_of_another_form_are_refused_with_both_shapes(
    make: Any, prediction: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {list(prediction)} and {list(target)}")):
        make(to_onehot_y=True)(torch.zeros(prediction), torch.zeros(target))


@pytest.mark.parametrize("shape", [(2, 1, 6, 6, 6), (2, 1, 6)])
def test_sobel_loss_refuses_input_that_is_not_2d(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must be (B, C, H, W), got {list(shape)}")):
        SobelLoss()(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("loss", [AGMRLoss(), TSRLLoss()])
def test_totals_refuse_a_final_prediction_of_another_size_than_the_label(loss: Any) -> None:
    output, _ = network_output()
    with pytest.raises(ValueError, match=r"prediction is \[2, 1, 24, 24\] and the target \[2, 1, 48, 48\]"):
        loss(output, torch.zeros(2, 1, 48, 48))


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_leaving_out_the_only_channel_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="leaves no channel of a single-channel prediction"):
        make(include_background=False)(*sample(2, 1, 10, 13))


@pytest.mark.parametrize("make", [TargetAwareLoss, EnhancedMixingLoss])
@pytest.mark.parametrize("argument", [{"alpha": 1.5}, {"alpha": -0.1}, {"gamma": -1.0}, {"smooth_dr": 0.0}])
def test_focal_and_dice_arguments_out_of_range_are_refused(make: Any, argument: dict[str, float]) -> None:
    (name, value), *_ = argument.items()
    sentence = rf"^alpha must be 0\.\.1, gamma 0 or more and smooth_dr above 0; got .*\b{name} {value}\b.*\.$"
    with pytest.raises(ValueError, match=sentence):
        make(**argument)


def test_a_focus_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^beta must be 1 or more, got 0\.$"):
        TargetAwareLoss(beta=0)


def test_enhanced_mixing_refuses_a_missed_lesion_that_costs_infinitely() -> None:
    with pytest.raises(ValueError, match=r"^smooth_nr must be above 0, got 0\.0\.$"):
        EnhancedMixingLoss(smooth_nr=0.0)


@pytest.mark.parametrize("make", MASK_LOSSES)
def test_unknown_reduction_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="average"):
        make(reduction="average")


def test_patch_prior_without_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="no patch scores: the network has no patch attention"):
        PatchPriorLoss()([], torch.zeros(1, 1, 24, 24))


# --- totals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "names"), [(AGMRLoss(), ["mixing", "sobel", "patch"]), (TSRLLoss(), ["final", "side", "patch"])]
)
def test_parts_add_up_to_the_total(loss: Any, names: list[str]) -> None:
    output, mask = network_output()
    parts = loss.parts(output, mask)
    assert list(parts) == names
    total = loss(output, mask)
    torch.testing.assert_close(sum(parts.values()), total)
    assert list(loss.latest_parts) == names  # what is logged
    for name, part in loss.latest_parts.items():
        assert torch.equal(part, parts[name])
        assert not part.requires_grad


@pytest.mark.parametrize(("loss", "left"), [(AGMRLoss(), ["mixing", "sobel"]), (TSRLLoss(), ["final"])])
def test_totals_of_logits_alone_are_the_final_losses(loss: Any, left: list[str]) -> None:
    """As in validation, or with a network that has neither sides nor scores."""
    output, mask = network_output()
    full = loss.parts(output, mask)
    for bare in (output.logits, NetworkOutput(output.logits, [], [])):
        assert list(loss.parts(bare, mask)) == left
        torch.testing.assert_close(loss(bare, mask), sum(full[name] for name in left))


def test_weights_of_0_leave_their_parts_out() -> None:
    output, mask = network_output()
    assert list(TSRLLoss(side_weight=0).parts(output, mask)) == ["final", "patch"]
    assert list(TSRLLoss(patch_weight=0).parts(output, mask)) == ["final", "side"]
    assert list(AGMRLoss(patch_weight=0).parts(output, mask)) == ["mixing", "sobel"]


@pytest.mark.parametrize("loss", [AGMRLoss(), TSRLLoss()])
def test_total_reaches_everything_that_it_supervises(loss: Any) -> None:
    output, mask = network_output()
    supervised = [output.logits, *output.patch_scores, *(output.side_logits if isinstance(loss, TSRLLoss) else [])]
    for tensor in supervised:
        tensor.requires_grad_()
    for gradient in torch.autograd.grad(loss(output, mask), supervised):
        assert gradient.isfinite().all()
        assert gradient.any()


class Sum(nn.Module):
    """Sum of two losses, as table 4.6 has cross entropy plus Dice."""

    def __init__(self, *losses: nn.Module) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.stack([loss(input, target) for loss in self.losses]).sum()


@pytest.mark.parametrize(
    "loss",
    [
        nn.BCEWithLogitsLoss(),
        DiceLoss(sigmoid=True, squared_pred=True),
        Sum(nn.BCEWithLogitsLoss(), DiceLoss(sigmoid=True)),
        DiceCELoss(sigmoid=True),
        FocalLoss(alpha=0.25, gamma=2),
        FocalLoss(alpha=0.75, gamma=2),
        TverskyLoss(sigmoid=True, alpha=0.75, beta=0.25),
        TverskyLoss(sigmoid=True, alpha=0.25, beta=0.75),
        EnhancedMixingLoss(alpha=0.25),
        EnhancedMixingLoss(alpha=0.75),
        TargetAwareLoss(alpha=0.25),
        TargetAwareLoss(alpha=0.75),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_of_table_4_6_supervise_the_final_and_the_side_outputs(loss: nn.Module) -> None:
    output, mask = network_output()
    parts = TSRLLoss(loss=loss).parts(output, mask)
    sides = [nn.Upsample(size=(24, 24), mode="bilinear")(side) for side in output.side_logits]
    torch.testing.assert_close(parts["final"], loss(output.logits, mask))
    torch.testing.assert_close(parts["side"], torch.stack([loss(side, mask) for side in sides]).sum())
    output.logits.requires_grad_()
    (gradient,) = torch.autograd.grad(TSRLLoss(loss=loss)(output, mask), output.logits)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_enhanced_mixing_focal_term_is_monais() -> None:
    """With a Dice coefficient that no prediction can change, what is left is MONAI's focal loss."""
    logits, mask = sample(2, 1, 10, 13)
    constant = {"smooth_nr": 1e8, "smooth_dr": 1e8}
    expected = FocalLoss(alpha=0.75, gamma=2)(logits, mask).item()
    assert EnhancedMixingLoss(**constant)(logits, mask).item() == pytest.approx(expected, rel=1e-4)
