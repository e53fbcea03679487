"""2D U-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bundle.networks.comparison.parts import conv_row, encode, resize
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["UNet"]


class UNet(SliceStackNetwork):
    """2D U-Net (Ronneberger et al., MICCAI 2015) in the widespread form with batch norm and bilinear upsampling.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 16. With one input channel
    it has the thesis's 17,266,241 parameters, with four 17,267,969.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 64) -> None:
        super().__init__(in_channels)
        widths = [width * factor for factor in (1, 2, 4, 8, 8)]
        self.encoder = nn.ModuleList(conv_row(i, o, o) for i, o in pairwise([in_channels, *widths]))
        # Each level halves its channels, as the skip adds as many in the next, finer level.
        self.decoder = nn.ModuleList(conv_row(2 * c, c, o) for c, o in pairwise([*widths[3::-1], width]))
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        *skips, x = encode(self.encoder, x)
        for level, skip in zip(self.decoder, reversed(skips), strict=True):
            x = level(torch.cat([skip, resize(x, skip)], dim=1))
        return self.head(x)
