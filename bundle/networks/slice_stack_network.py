"""The base class of every network: from a stack of slices to the logits of one of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

__all__ = ["NetworkOutput", "SliceStackNetwork"]


class NetworkOutput(NamedTuple):
    """Output of a network in ``train()``.

    Attributes:
        logits: of the stack's own slice, ``(B, out_channels, H, W)``.
        side_logits: of the decoder levels, from the deepest (1/8) to the finest (1/1); empty without side outputs.
        patch_scores: of the encoder levels, from the finest to the deepest, ``(B, 1, grid, grid)`` in 0..1, one for
            each grid of a level; empty without patch attention.
    """

    logits: torch.Tensor
    side_logits: list[torch.Tensor]
    patch_scores: list[torch.Tensor]


class SliceStackNetwork(nn.Module):
    """A network from a stack of slices of one image to the logits of the stack's own slice.

    A subclass defines :meth:`logits`. The channels are the slices: input of several modalities is not supported.

    Args:
        in_channels: stacked slices.
        divisor: H and W must be multiples of it.
        min_size: H and W must be at least this.
    """

    def __init__(self, in_channels: int, divisor: int = 16, min_size: int = 0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisor = divisor
        self.min_size = min_size
        self.fitting = f"multiples of {divisor}" + (f" and at least {min_size}" if min_size > divisor else "")

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(B, out_channels, H, W)`` of ``(B, in_channels, H, W)``, channels last in memory."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor | NetworkOutput:
        """
        Args:
            x: stacks of slices ``(B, in_channels, H, W)``, H and W multiples of ``divisor``.

        Returns:
            logits ``(B, out_channels, H, W)``, in ``train()`` as in ``eval()``.

        Raises:
            ValueError: when the input has another shape.
        """
        return self.logits(self.checked(x))

    def checked(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input channels last in memory, which makes bfloat16 convolutions three times as fast with AMX.

        Raises:
            ValueError: when the shape is not ``(B, in_channels, H, W)`` with H and W as the network needs them.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"The input must be (B, {self.in_channels}, H, W), got {list(x.shape)}.")
        height, width = x.shape[2], x.shape[3]
        if height % self.divisor or width % self.divisor or min(height, width) < self.min_size:
            fit_height = max(self.min_size, (height + self.divisor - 1) // self.divisor * self.divisor)
            fit_width = max(self.min_size, (width + self.divisor - 1) // self.divisor * self.divisor)
            raise ValueError(
                f"H and W must be {self.fitting}, got {height} x {width}: pad the slices to {fit_height} x {fit_width}"
                " (in the configs, by a larger box_mm)."
            )
        return x.contiguous(memory_format=torch.channels_last)
