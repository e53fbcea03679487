"""Enhanced mixing loss (thesis 3.5.3, D-UNet)."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from bundle.losses.regions import dice_coefficient, focal_term, prepare, reduce

__all__ = ["EnhancedMixingLoss"]


class EnhancedMixingLoss(_Loss):
    """Enhanced mixing loss, EML (eq. 3.13; Zhou et al., IEEE/ACM TCBB 2021): ``focal - log D``.

    ``focal = mean(-(alpha g + (1 - alpha)(1 - g)) (1 - p_t)^gamma log p_t)`` and
    ``D = (2 sum(gp) + smooth_nr) / (sum p^2 + sum g^2 + smooth_dr)``. The thesis prints the Dice loss in the log, which
    would reward errors; D-UNet, where it comes from, has the coefficient.

    Args:
        include_background: keep channel 0 when there are several.
        to_onehot_y: the target holds class indices ``(B, 1, ...)``.
        sigmoid: the input holds logits; False if it holds probabilities.
        alpha: weight of lesion pixels, ``1 - alpha`` of the others, 0..1.
        gamma: exponent of the focal term, 0 or more.
        smooth_nr: added to the numerator of the Dice coefficient, above 0, or a missed lesion would cost infinitely.
        smooth_dr: added to its denominator.
        batch: sum the Dice coefficient over the batch, not per sample.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the ``(B, C)`` losses.

    Raises:
        ValueError: when an argument is out of its range.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        batch: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if not 0 <= alpha <= 1 or gamma < 0 or min(smooth_nr, smooth_dr) <= 0:
            raise ValueError(
                "alpha must be 0..1, gamma 0 or more, smooth_nr and smooth_dr above 0; "
                f"got {alpha}, {gamma}, {smooth_nr}, {smooth_dr}."
            )
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.alpha = alpha
        self.gamma = gamma
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits ``(B, C, ...)``.
            target: 0 and 1, of the same shape.

        Returns:
            a scalar, or ``(B, C)`` without reduction.
        """
        logits, target = prepare(input, target, self.sigmoid, self.to_onehot_y, self.include_background)
        weight = target * self.alpha + (1 - target) * (1 - self.alpha)
        focal = focal_term(logits, target, weight, self.gamma)
        dice = dice_coefficient(logits, target, self.smooth_nr, self.smooth_dr, self.batch)
        return reduce(focal - torch.log(dice), self.reduction)
