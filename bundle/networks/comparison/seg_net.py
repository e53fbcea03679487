"""SegNet."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bundle.networks.comparison.parts import conv_row
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["SegNet"]


class SegNet(SliceStackNetwork):
    """SegNet (Badrinarayanan et al., IEEE TPAMI 2017): VGG-16 and its mirror image with max-unpooling.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 32. With one input channel
    it has the thesis's 29,442,433 parameters, with four 29,444,161.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 64) -> None:
        super().__init__(in_channels, divisor=32)
        rows = [[width * factor] * depth for factor, depth in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))]
        above = [in_channels, *(row[-1] for row in rows)]
        self.encoder = nn.ModuleList(conv_row(c, *row) for c, row in zip(above, rows, strict=False))
        mirrored = [conv_row(*row, c) for c, row in zip(above[1:], rows[1:], strict=False)]
        self.decoder = nn.ModuleList([*reversed(mirrored), conv_row(width, width)])
        self.head = nn.Conv2d(width, out_channels, kernel_size=3, padding=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        maxima: list[torch.Tensor] = []
        for level in self.encoder:
            x, indices = F.max_pool2d(level(x), 2, return_indices=True)
            maxima.append(indices)
        for level, indices in zip(self.decoder, reversed(maxima), strict=True):
            x = level(F.max_unpool2d(x, indices, [2, 2]))
        return self.head(x)
