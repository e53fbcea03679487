"""What the comparison networks are built of: their common face, and MONAI's convolution in rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

__all__ = ["ComparisonNetwork", "conv_row", "conv_unit", "encode", "resize"]


class ComparisonNetwork(nn.Module, ABC):
    """A network from a stack of slices to the logits of the stack's own slice; a subclass says how, in ``logits``.

    Args:
        in_channels: stacked slices.
    """

    divisor = 16
    """H and W must be multiples of it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    @abstractmethod
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, in_channels, H, W)``, channels last in memory, to the logits ``(B, out_channels, H, W)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: stacks of slices ``(B, in_channels, H, W)``, H and W multiples of ``divisor``.

        Returns:
            logits ``(B, out_channels, H, W)``, in ``train()`` as in ``eval()``.

        Raises:
            ValueError: when the shape is another.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"The input must be (B, {self.in_channels}, H, W), got {list(x.shape)}.")
        fit = [(size + self.divisor - 1) // self.divisor * self.divisor for size in x.shape[2:]]
        if fit != list(x.shape[2:]):
            raise ValueError(
                f"H and W must be multiples of {self.divisor}, got {x.shape[2]} x {x.shape[3]}: "
                f"pad the slices to {fit[0]} x {fit[1]}."
            )
        return self.logits(x.contiguous(memory_format=torch.channels_last))


def conv_unit(in_channels: int, out_channels: int, kernel_size: int = 3, **settings: Any) -> Convolution:
    """2D convolution that keeps the size, batch norm, ReLU; ``settings`` are more arguments of ``Convolution``."""
    return Convolution(2, in_channels, out_channels, kernel_size=kernel_size, act="relu", norm="batch", **settings)


def conv_row(*channels: int, bias: bool = True) -> nn.Sequential:
    """3x3 units in a row: ``(B, channels[0], H, W)`` to ``(B, channels[-1], H, W)``."""
    return nn.Sequential(*(conv_unit(i, o, bias=bias) for i, o in pairwise(channels)))


def encode(levels: nn.ModuleList, x: torch.Tensor) -> list[torch.Tensor]:
    """What each level makes of the level above, max-pooled by 2; the first level takes ``x`` as it is."""
    features = [levels[0](x)]
    for level in list(levels)[1:]:
        features.append(level(F.max_pool2d(features[-1], 2)))
    return features


def resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Bilinear interpolation to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
