"""The base of the thesis's two lesion losses: a focal term and the Dice coefficient."""

from __future__ import annotations

from abc import abstractmethod

import torch

from bundle.losses.regions import RegionLoss, dice_coefficient, focal_term

__all__ = ["FocalDiceLoss"]


class FocalDiceLoss(RegionLoss):
    """A focal term and a Dice term: ``mean(-w (1 - p_t)^gamma log p_t) + region(D)``.

    ``w = A alpha + (1 - A)(1 - alpha)`` and ``D = (2 sum(gp) + smooth_nr) / (sum p^2 + sum g^2 + smooth_dr)``. A
    subclass defines the focus ``A`` and the cost of the Dice coefficient ``D``.

    Args:
        include_background: keep channel 0 when there are several.
        to_onehot_y: the target holds class indices ``(B, 1, ...)``.
        sigmoid: the input holds logits; False if it holds probabilities.
        alpha: weight of lesion pixels, ``1 - alpha`` of the others, 0..1.
        gamma: exponent of the focal term, 0 or more.
        smooth_nr: added to the numerator of the Dice coefficient.
        smooth_dr: added to its denominator, above 0.
        batch: sum the Dice coefficient over the batch, not per sample: most slices have no lesion, and per sample each
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
        alpha: float = 0.75,
        gamma: float = 2.0,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        batch: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(include_background, to_onehot_y, sigmoid, reduction)
        if not 0 <= alpha <= 1 or gamma < 0 or smooth_dr <= 0:
            raise ValueError(
                "alpha must be 0..1, gamma 0 or more and smooth_dr above 0; "
                f"got alpha {alpha}, gamma {gamma}, smooth_dr {smooth_dr}."
            )
        self.alpha = alpha
        self.gamma = gamma
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch

    @abstractmethod
    def focus(self, target: torch.Tensor) -> torch.Tensor:
        """Return 1 where the focal term is weighted by ``alpha``, 0 where by ``1 - alpha``, in the target's shape."""

    @abstractmethod
    def region(self, dice: torch.Tensor) -> torch.Tensor:
        """Return the cost of Dice coefficients, elementwise."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits ``(B, C, ...)``, one to three spatial axes.
            target: 0 and 1, of the same shape.

        Returns:
            a scalar, or ``(B, C)`` without reduction.

        Raises:
            ValueError: when the shapes differ.
        """
        logits, target = self.prepare(input, target)
        focus = self.focus(target)
        weight = focus * self.alpha + (1 - focus) * (1 - self.alpha)
        focal = focal_term(logits, target, weight, self.gamma)
        dice = dice_coefficient(logits, target, self.smooth_nr, self.smooth_dr, self.batch)
        loss = focal + self.region(dice)
        return loss if self.reduction == "none" else getattr(torch, self.reduction)(loss)
