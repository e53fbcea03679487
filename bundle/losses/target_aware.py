"""Target-aware loss (thesis 4.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from bundle.losses.focal_dice import FocalDiceLoss

__all__ = ["TargetAwareLoss", "focus_map"]

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def focus_map(target: torch.Tensor, beta: int) -> torch.Tensor:
    """Return 1 in every window with sides of ``beta`` pixels that has any lesion, else 0 (eq. 4.4).

    Windows start at index 0; those at the far border are cropped, not dropped.

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


class TargetAwareLoss(FocalDiceLoss):
    """Target-aware loss, TAL (thesis 4.3, eq. 4.4-4.7): focal loss with more weight around lesions, and Dice loss.

    ``TAL = mean(-(A alpha + (1 - A)(1 - alpha)) (1 - p_t)^gamma log p_t) + 1 - D`` with the focus map A of
    :func:`focus_map` and D as in :class:`FocalDiceLoss`. Equation 4.6 prints ``alpha`` twice and 4.7 the coefficient
    instead of the loss; this class follows the thesis's text.

    On a batch without lesion the loss is ``(1 - alpha) mean(p^gamma * -log(1 - p)) + 1 - smooth_nr / (sum p^2 +
    smooth_dr)``: false positives are penalised and have a gradient.

    Args:
        beta: side of the focus windows in pixels.
        settings: arguments of :class:`FocalDiceLoss`.

    Raises:
        ValueError: when an argument is out of its range.
    """

    def __init__(self, beta: int = 4, **settings: Any) -> None:
        super().__init__(**settings)
        if beta < 1:
            raise ValueError(f"beta must be 1 or more, got {beta}.")
        self.beta = beta

    def focus(self, target: torch.Tensor) -> torch.Tensor:
        """Return the focus map of the lesion."""
        return focus_map(target, self.beta)

    def region(self, dice: torch.Tensor) -> torch.Tensor:
        """Return ``1 - D``."""
        return 1 - dice
