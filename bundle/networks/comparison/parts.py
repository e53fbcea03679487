"""Parts that the comparison networks share: stacks of MONAI convolutions, an encoder, resizing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

__all__ = ["conv_row", "conv_unit", "encode", "resize"]

HALF_SIZE = nn.MaxPool2d(2)


def conv_unit(in_channels: int, out_channels: int, kernel_size: int = 3, **settings: Any) -> Convolution:
    """Return a 2D convolution that keeps the size, batch norm and ReLU; ``settings`` go to MONAI's ``Convolution``."""
    return Convolution(2, in_channels, out_channels, kernel_size=kernel_size, act="relu", norm="batch", **settings)


def conv_row(*channels: int, bias: bool = True) -> nn.Sequential:
    """Return 3x3 units in a row, from ``(B, channels[0], H, W)`` to ``(B, channels[-1], H, W)``."""
    return nn.Sequential(*(conv_unit(i, o, bias=bias) for i, o in pairwise(channels)))


def encode(levels: nn.ModuleList, x: torch.Tensor, pool: nn.Module = HALF_SIZE) -> list[torch.Tensor]:
    """Return the features of each level; every level but the first takes those of the one before, pooled."""
    features: list[torch.Tensor] = []
    for level in levels:
        features.append(level(pool(features[-1]) if features else x))
    return features


def resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return ``x`` interpolated bilinearly to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
