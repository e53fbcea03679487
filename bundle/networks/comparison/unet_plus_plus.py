"""UNet++."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bundle.networks.comparison.parts import conv_row, resize
from bundle.networks.comparison.resnet import ResNetEncoder
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["UNetPlusPlus"]

_NODES = [(scale, column) for column in range(1, 5) for scale in range(5 - column)]
"""Nodes of the decoders in the order in which they can be computed."""


class UNetPlusPlus(SliceStackNetwork):
    """UNet++ (Zhou et al., DLMIA 2018) on a ResNet-34: nested decoders whose four outputs are averaged.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 32. With one input channel
    it has the thesis's 26,897,860 parameters, with four 26,907,268. The averaging is the paper's accurate mode. The
    finest features are at 1/2, because the stem of a ResNet has stride 2, and their logits are upsampled. MONAI's
    ``BasicUNetPlusPlus`` has no ResNet and other widths.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 64) -> None:
        super().__init__(in_channels, divisor=32)
        self.encoder = ResNetEncoder(in_channels, width=width)
        rows = [[channels] for channels in self.encoder.channels]
        self.nodes = nn.ModuleList()
        for scale, column in _NODES:
            channels = self.encoder.channels[scale + column - 1]
            given = sum(rows[scale]) + rows[scale + 1][-1]
            self.nodes.append(conv_row(given, channels // 2, channels // 2, channels, bias=False))
            rows[scale].append(channels)
        self.heads = nn.ModuleList(nn.Conv2d(channels, out_channels, kernel_size=1) for channels in rows[0][1:])

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        rows = [[features] for features in self.encoder(x)]
        for node, (scale, _) in zip(self.nodes, _NODES, strict=True):
            below = F.interpolate(rows[scale + 1][-1], scale_factor=2, mode="nearest")
            rows[scale].append(node(torch.cat([*rows[scale], below], dim=1)))
        outputs = [head(features) for head, features in zip(self.heads, rows[0][1:], strict=True)]
        return resize(torch.stack(outputs).mean(dim=0), x)
