"""Target-aware loss (thesis 4.3)."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.losses.regions import dice_coefficient, focal_term, prepare, reduce

__all__ = ["TargetAwareLoss", "focus_map"]

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def focus_map(target: torch.Tensor, beta: int) -> torch.Tensor:
    """1 in every window of ``beta`` pixels a side that holds any lesion, else 0 (eq. 4.4).

    Windows start at index 0; those at the far border are cut, not dropped.

    Args:
        target: 0 and 1, ``(B, C, ...)`` with one to three spatial axes.
        beta: side of the windows in pixels.

    Returns:
        the map, in the target's shape and dtype.
    """
    shape = target.shape[2:]
    windows = _MAX_POOL[len(shape)](target, kernel_size=beta, stride=beta, ceil_mode=True)
    for axis, size in enumerate(shape, start=2):
        windows = windows.repeat_interleave(beta, dim=axis).narrow(axis, 0, size)
    return windows


class TargetAwareLoss(_Loss):
    """Target-aware loss, TAL (thesis 4.3, eq. 4.4-4.7): a focal loss whose weight looks around the lesion, and Dice.

    ``TAL = mean(-(A alpha + (1 - A)(1 - alpha)) (1 - p_t)^gamma log p_t) + 1 - D`` with the focus map A of
    :func:`focus_map` and ``D = (2 sum(gp) + smooth_nr) / (sum p^2 + sum g^2 + smooth_dr)``. Equation 4.6 prints
    ``alpha`` twice and 4.7 a coefficient in place of the loss; the thesis's text says what stands here.

    On a batch without lesion the loss is ``(1 - alpha) mean(p^gamma * -log(1 - p)) + 1 - smooth_nr / (sum p^2 +
    smooth_dr)``: false positives cost, and have a gradient.

    Args:
        include_background: keep channel 0 when there are several.
        to_onehot_y: the target holds class indices ``(B, 1, ...)``.
        sigmoid: the input holds logits; False if it holds probabilities.
        beta: side of the focus windows in pixels.
        alpha: weight inside the focus, ``1 - alpha`` outside, 0..1.
        gamma: exponent of the focal term, 0 or more.
        smooth_nr: added to the numerator of the Dice coefficient.
        smooth_dr: added to its denominator.
        batch: sum the Dice coefficient over the batch, not per sample: most slices hold no lesion, and per sample each
            of them would cost as much as a missed lesion.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the ``(B, C)`` losses.

    Raises:
        ValueError: when an argument is out of its range.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = True,
        beta: int = 4,
        alpha: float = 0.75,
        gamma: float = 2.0,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        batch: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if beta < 1 or not 0 <= alpha <= 1 or gamma < 0 or smooth_dr <= 0:
            raise ValueError(
                "beta must be 1 or more, alpha 0..1, gamma 0 or more and smooth_dr above 0; "
                f"got {beta}, {alpha}, {gamma}, {smooth_dr}."
            )
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.beta = beta
        self.alpha = alpha
        self.gamma = gamma
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits ``(B, C, ...)``, one to three spatial axes.
            target: 0 and 1, of the same shape.

        Returns:
            a scalar, or ``(B, C)`` without reduction.
        """
        logits, target = prepare(input, target, self.sigmoid, self.to_onehot_y, self.include_background)
        focus = focus_map(target, self.beta)
        weight = focus * self.alpha + (1 - focus) * (1 - self.alpha)
        focal = focal_term(logits, target, weight, self.gamma)
        dice = dice_coefficient(logits, target, self.smooth_nr, self.smooth_dr, self.batch)
        return reduce(focal + 1 - dice, self.reduction)
