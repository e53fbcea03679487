"""Terms that several losses share: the preparation of their inputs, the focal term and the Dice coefficient.

All work in float32, also under autocast, on ``(B, C, ...)`` tensors with any number of spatial axes.
"""

from __future__ import annotations

import torch
from monai.networks.utils import one_hot
from monai.utils import LossReduction
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

__all__ = ["RegionLoss", "dice_coefficient", "focal_term"]


class RegionLoss(_Loss):
    """The base of losses between a prediction and a mask, with the arguments of MONAI's losses.

    Args:
        include_background: keep channel 0 when there are several.
        to_onehot_y: convert class indices ``(B, 1, ...)`` in the target to one channel per class.
        sigmoid: the input holds logits; False if it holds probabilities.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: when the reduction is not one of them.
    """

    def __init__(
        self, include_background: bool = True, to_onehot_y: bool = False, sigmoid: bool = True, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid

    def prepare(self, input: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and binary target of equal shape, as float32.

        Args:
            input: logits ``(B, C, ...)``, or probabilities when ``sigmoid`` is False.
            target: 0 and 1, ``(B, C, ...)``; class indices ``(B, 1, ...)`` with ``to_onehot_y``.

        Raises:
            ValueError: when the shapes differ, the target does not hold class indices although ``to_onehot_y`` is set,
                or no channel is left without the background.
        """
        channels = input.shape[1]
        if self.to_onehot_y:
            if channels == 1 or target.shape[1] != 1:
                raise ValueError(
                    "to_onehot_y needs a channel per class in the prediction and class indices (B, 1, ...) in the "
                    f"target, got {list(input.shape)} and {list(target.shape)}."
                )
            target = one_hot(target, num_classes=channels)
        if not self.include_background:
            if channels == 1:
                raise ValueError("include_background=False leaves no channel of a single-channel prediction.")
            input, target = input[:, 1:], target[:, 1:]
        if input.shape != target.shape:
            raise ValueError(
                f"The prediction is {list(input.shape)} and the target {list(target.shape)}: they must match."
            )
        logits = input.float()
        if not self.sigmoid:
            logits = torch.logit(logits, eps=torch.finfo(torch.float32).eps)
        return logits, target.to(logits)


def focal_term(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return ``-weight (1 - p_t)^gamma log p_t``, its mean over the spatial axes, ``(B, C)``; finite at any logit."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # -log p_t
    # (1 - p_t)^gamma by its log: a power of a sigmoid that is 0 has no finite gradient for gamma below 1.
    missed = torch.exp(gamma * F.logsigmoid(logits * (1 - 2 * target)))
    return (weight * missed * cross_entropy).flatten(2).mean(dim=2)


def dice_coefficient(
    logits: torch.Tensor, target: torch.Tensor, smooth_nr: float, smooth_dr: float, batch: bool
) -> torch.Tensor:
    """Return ``(2 sum(gp) + smooth_nr) / (sum p^2 + sum g^2 + smooth_dr)``, ``(1, C)`` if batch, else ``(B, C)``."""
    axes = [axis for axis in range(logits.dim()) if axis > 1 or (batch and axis == 0)]
    p = torch.sigmoid(logits)
    overlap = (target * p).sum(dim=axes)
    total = (p * p).sum(dim=axes) + (target * target).sum(dim=axes)
    coefficient = (2 * overlap + smooth_nr) / (total + smooth_dr)
    return coefficient.unsqueeze(0) if batch else coefficient
