"""PSPNet."""

from __future__ import annotations

from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

from bundle.networks.comparison.parts import resize
from bundle.networks.comparison.resnet import ResNetEncoder
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["PSPNet"]


class PSPNet(SliceStackNetwork):
    """PSPNet (Zhao et al., CVPR 2017) on a dilated ResNet-34, with three upsampling steps after the pyramid.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 8. With one input channel
    it has the thesis's 27,494,276 parameters, with four 27,503,684. The paper has ResNet-50 or deeper, a convolution
    that narrows each pooled map, and one upsampling by 8; the thesis's count is that of a public PyTorch version.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
        grids: cells along each side of the pyramid's pooled maps.
    """

    def __init__(
        self, in_channels: int = 4, out_channels: int = 1, width: int = 64, grids: tuple[int, ...] = (1, 2, 3, 6)
    ) -> None:
        super().__init__(in_channels, divisor=8)
        self.encoder = ResNetEncoder(in_channels, width=width, output_stride=8)
        deep = self.encoder.channels[-1]
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), nn.Conv2d(deep, deep, kernel_size=1, bias=False))
            for grid in grids
        )
        self.join = nn.Conv2d(deep * (len(grids) + 1), 2 * deep, kernel_size=1)
        self.up = nn.ModuleList(
            Convolution(2, i, o, act="prelu", norm="batch") for i, o in pairwise([2 * deep, 4 * width, width, width])
        )
        self.dropouts = nn.ModuleList(nn.Dropout2d(p) for p in (0.3, 0.15, 0.15, 0.15))
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        deep = self.encoder(x)[-1]
        pooled = [resize(level(deep), deep) for level in self.pyramid]
        x = self.dropouts[0](F.relu(self.join(torch.cat([*pooled, deep], dim=1))))
        for up, dropout in zip(self.up, list(self.dropouts)[1:], strict=True):
            x = dropout(up(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)))
        return self.head(x)
