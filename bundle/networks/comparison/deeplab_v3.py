"""DeepLab v3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bundle.networks.comparison.parts import conv_unit, resize
from bundle.networks.comparison.resnet import ResNetEncoder
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["DeepLabV3"]


class DeepLabV3(SliceStackNetwork):
    """DeepLab v3 (Chen et al., arXiv 1706.05587, 2017): ResNet-101 at 1/16, atrous spatial pyramid pooling.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 16. With one input channel
    it has the thesis's 58,158,145 parameters, with four 58,159,873. The counts are those of a ResNet with a stem of
    three 3x3 convolutions; the paper's has one of 7x7.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
        depths: blocks of the four stages.
        rates: dilations of the pyramid.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 1,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 23, 3),
        rates: Sequence[int] = (6, 12, 18),
    ) -> None:
        super().__init__(in_channels)
        self.encoder = ResNetEncoder(in_channels, depths, width, bottleneck=True, output_stride=16, deep_stem=True)
        deep, channels = self.encoder.channels[-1], 4 * width
        self.pyramid = nn.ModuleList(
            [
                conv_unit(deep, channels, kernel_size=1, bias=False),
                *(conv_unit(deep, channels, dilation=rate, bias=False) for rate in rates),
            ]
        )
        self.image = conv_unit(deep, channels, kernel_size=1, bias=False)
        self.join = conv_unit(channels * (len(rates) + 2), channels, kernel_size=1, bias=False)
        self.head = nn.Conv2d(channels, out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        deep = self.encoder(x)[-1]
        # Expanded before the batch norm, which in train() refuses one value per channel, as in a batch of one slice.
        image = self.image(deep.mean(dim=(2, 3), keepdim=True).expand_as(deep))
        joined = self.join(torch.cat([*(level(deep) for level in self.pyramid), image], dim=1))
        return resize(self.head(joined), x)
