"""The total losses of the two networks; each takes a ``NetworkOutput``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.losses.enhanced_mixing import EnhancedMixingLoss
from bundle.losses.patch_prior import PatchPriorLoss
from bundle.losses.sobel import SobelLoss
from bundle.losses.target_aware import TargetAwareLoss

__all__ = ["AGMRLoss", "SupervisedTotalLoss", "TSRLLoss"]


class SupervisedTotalLoss(_Loss):
    """``sum of final losses + side_weight * sum of side losses + patch_weight * sum of patch prior losses``.

    A part for which the network has no output, such as side outputs, is left out.

    Args:
        final: losses of the final logits, by the name under which they are logged.
        side: loss of each side output, whose logits are upsampled to the label's size.
        side_weight: weight of the side losses; 0 trains without side supervision.
        patch_weight: weight of the patch prior losses; 0 trains without them.
    """

    def __init__(
        self, final: Mapping[str, nn.Module], side: nn.Module | None, side_weight: float, patch_weight: float
    ) -> None:
        super().__init__(reduction="mean")
        self.final = nn.ModuleDict(final)
        self.side = side
        self.side_weight = side_weight
        self.patch_weight = patch_weight
        self.patch_prior = PatchPriorLoss()
        self.latest_parts: dict[str, torch.Tensor] = {}
        """Parts of the last call, without gradient, for the log."""

    def parts(self, input: torch.Tensor | tuple, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the weighted parts by name, scalars whose sum is the loss.

        Args:
            input: a ``NetworkOutput``, or the logits ``(B, C, H, W)`` alone.
            target: lesion mask of 0 and 1, ``(B, C, H, W)``.
        """
        logits, sides, scores = (input, [], []) if isinstance(input, torch.Tensor) else input
        parts = {name: loss(logits, target) for name, loss in self.final.items()}
        if sides and self.side is not None and self.side_weight > 0:
            size = target.shape[-2:]
            upsampled = [F.interpolate(s.float(), size=size, mode="bilinear", align_corners=False) for s in sides]
            parts["side"] = self.side_weight * torch.stack([self.side(s, target) for s in upsampled]).sum()
        if scores and self.patch_weight > 0:
            parts["patch"] = self.patch_weight * self.patch_prior(scores, target)
        return parts

    def forward(self, input: torch.Tensor | tuple, target: torch.Tensor) -> torch.Tensor:
        """Return the sum of :meth:`parts`, a scalar."""
        parts = self.parts(input, target)
        self.latest_parts = {name: value.detach() for name, value in parts.items()}
        return torch.stack(list(parts.values())).sum()


class AGMRLoss(SupervisedTotalLoss):
    """AGMR-Net's total (eq. 3.16): ``EML + Sobel + 0.15 sum of 5 patch prior losses``.

    Args:
        alpha: weight of lesion pixels in EML.
        gamma: focal exponent of EML.
        patch_weight: weight of the patch prior losses.
    """

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0, patch_weight: float = 0.15) -> None:
        final = {"mixing": EnhancedMixingLoss(alpha=alpha, gamma=gamma), "sobel": SobelLoss()}
        super().__init__(final, side=None, side_weight=0.0, patch_weight=patch_weight)


class TSRLLoss(SupervisedTotalLoss):
    """TSRL-Net's total (eq. 4.8): ``TAL(final) + sum of 4 TAL(side) + 0.15 sum of 5 patch prior losses``.

    Args:
        loss: loss of the final and of each side output, from logits; TAL if None. Table 4.6 compares others.
        side_weight: weight of the side losses; 0 trains without side supervision.
        patch_weight: weight of the patch prior losses.
    """

    def __init__(self, loss: nn.Module | None = None, side_weight: float = 1.0, patch_weight: float = 0.15) -> None:
        loss = TargetAwareLoss() if loss is None else loss
        super().__init__({"final": loss}, side=loss, side_weight=side_weight, patch_weight=patch_weight)
