"""Supervision of the coarse patch attention (thesis 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

__all__ = ["PatchPriorLoss"]


class PatchPriorLoss(_Loss):
    """Cross entropy of patch scores and the prior map, summed over the encoder levels (eq. 3.15) and their grids.

    The prior map is 1 where a patch of the ground truth has any lesion: its max-pool to the scores' grid.
    """

    def __init__(self) -> None:
        super().__init__(reduction="mean")

    def forward(self, input: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: scores of each level and grid, ``(B, 1, grid, grid)``, 0..1.
            target: lesion mask of 0 and 1, ``(B, C, H, W)``; a patch counts when any channel has lesion in it.

        Returns:
            a scalar, the sum of the maps' means.

        Raises:
            ValueError: when there are no scores.
        """
        if not input:
            raise ValueError("There are no patch scores: the network has no patch attention or is not in train().")
        lesion = target.float().amax(dim=1, keepdim=True)
        priors = {size: F.adaptive_max_pool2d(lesion, size) for size in {scores.shape[-2:] for scores in input}}
        with torch.autocast(lesion.device.type, enabled=False):
            each = [F.binary_cross_entropy(scores.float(), priors[scores.shape[-2:]]) for scores in input]
            return torch.stack(each).sum()
