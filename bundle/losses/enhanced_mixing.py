"""Enhanced mixing loss (thesis 3.5.3, D-UNet)."""

from __future__ import annotations

from typing import Any

import torch

from bundle.losses.focal_dice import FocalDiceLoss

__all__ = ["EnhancedMixingLoss"]


class EnhancedMixingLoss(FocalDiceLoss):
    """Enhanced mixing loss, EML (eq. 3.13; Zhou et al., IEEE/ACM TCBB 2021): ``focal - log D``.

    The focal term weights lesion pixels by ``alpha``. The thesis prints the Dice loss in the log, which would reward
    errors; D-UNet, where the loss comes from, has the coefficient.

    Args:
        settings: arguments of :class:`FocalDiceLoss`; ``smooth_nr`` must be above 0, or the loss of a missed
            lesion would be infinite.

    Raises:
        ValueError: when an argument is out of its range.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.smooth_nr <= 0:
            raise ValueError(f"smooth_nr must be above 0, got {self.smooth_nr}.")

    def focus(self, target: torch.Tensor) -> torch.Tensor:
        """Return the lesion itself."""
        return target

    def region(self, dice: torch.Tensor) -> torch.Tensor:
        """Return ``-log D``."""
        return -torch.log(dice)
