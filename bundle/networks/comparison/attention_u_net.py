"""Attention U-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn

from bundle.networks.comparison.parts import conv_row, conv_unit, encode
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["AttentionUNet"]


class AttentionUNet(SliceStackNetwork):
    """Attention U-Net (Oktay et al., MIDL 2018) in its widespread 2D form: gates at full scale, nearest upsampling.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 16. With one input channel
    it has the thesis's 34,877,421 parameters, with four 34,879,149. The gates are MONAI's; its ``AttentionUnet`` uses
    strides and deconvolutions, and so has other counts.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 64) -> None:
        super().__init__(in_channels)
        widths = [width << level for level in range(5)]
        self.encoder = nn.ModuleList(conv_row(i, o, o) for i, o in pairwise([in_channels, *widths]))
        steps = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.Sequential(nn.Upsample(scale_factor=2), conv_unit(i, o)) for i, o in steps)
        self.gates = nn.ModuleList(AttentionBlock(2, f_int=c // 2, f_g=c, f_l=c) for _, c in steps)
        self.decoder = nn.ModuleList(conv_row(2 * c, c, c) for _, c in steps)
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        *skips, x = encode(self.encoder, x)
        for up, gate, level, skip in zip(self.up, self.gates, self.decoder, reversed(skips), strict=True):
            x = up(x)
            x = level(torch.cat([gate(g=x, x=skip), x], dim=1))
        return self.head(x)
