"""Spatial attention: maps in 0..1 that are applied to the features as ``map * features + features``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CoarsePatchAttention", "MixedPatchAttention", "PixelAttention"]


class CoarsePatchAttention(nn.Module):
    """Coarse-grained patch attention, CPA (thesis 3.2, eq. 3.1-3.4).

    The channel mean is pooled to a grid of patches, two linear layers relate all patches to each other, and a sigmoid
    gives one score per patch, which the patch prior supervises. The grid is the same for every size of the input; at
    sizes that it does not divide, neighbouring patches share a row of pixels.

    Args:
        grid: patches along each side.
    """

    def __init__(self, grid: int = 6) -> None:
        super().__init__()
        self.grid = grid
        patches = grid * grid
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.relate = nn.Sequential(
            nn.Linear(patches, patches // 2, bias=False), nn.PReLU(), nn.Linear(patches // 2, patches, bias=False)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """
        Args:
            x: features ``(B, C, H, W)``.

        Returns:
            the features with attention ``(B, C, H, W)`` and a list of the patch scores ``(B, 1, grid, grid)``, float32,
            0..1.
        """
        descriptor = self.pool(x.mean(dim=1, keepdim=True)).flatten(1)
        # float32 before the sigmoid: in bfloat16 a score would round to exactly 0 or 1 and lose its gradient.
        scores = torch.sigmoid(self.relate(descriptor).float()).view(-1, 1, self.grid, self.grid)
        attention = F.interpolate(scores, size=x.shape[-2:], mode="nearest").to(x.dtype)
        return attention * x + x, [scores]


class MixedPatchAttention(nn.Module):
    """CPA with several grids at one level: the mean of their maps (mixed granularity, the thesis's outlook).

    Args:
        grids: for each grid its patches along each side.
    """

    def __init__(self, grids: Sequence[int]) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(CoarsePatchAttention(grid) for grid in grids)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """
        Args:
            x: features ``(B, C, H, W)``.

        Returns:
            the features with attention ``(B, C, H, W)`` and the patch scores of each grid, ``(B, 1, grid, grid)``.
        """
        attended = torch.zeros_like(x)
        scores: list[torch.Tensor] = []
        for attention in self.attentions:
            features, score = attention(x)
            attended = attended + features
            scores += score
        return attended / len(self.attentions), scores


class PixelAttention(nn.Module):
    """Fine attention, FA: one unsupervised score per pixel (table 3.4).

    The thesis does not specify its layers; a 1x1 convolution and a sigmoid are the usual form (sSE, Roy et al., 2018).

    Args:
        channels: channels of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return features with attention ``(B, C, H, W)`` and a list of the scores ``(B, 1, H, W)``."""
        scores = torch.sigmoid(self.score(x))
        return scores * x + x, [scores]
