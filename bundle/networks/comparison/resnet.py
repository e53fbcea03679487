"""The residual encoder that four of the comparison networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from torch import nn
from torch.nn import functional as F

from bundle.networks.comparison.parts import conv_row, conv_unit

__all__ = ["ResNetEncoder"]


def _stage(
    block: type[ResNetBlock | ResNetBottleneck], in_channels: int, planes: int, depth: int, stride: int, dilation: int
) -> nn.Sequential:
    """Return blocks from ``(B, in_channels, H, W)`` to ``(B, planes * expansion, H / stride, W / stride)``."""
    channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = Convolution(2, in_channels, channels, stride, kernel_size=1, act=None, norm="batch", bias=False)
    first = block(in_channels, planes, spatial_dims=2, stride=stride, downsample=shortcut)
    stage = nn.Sequential(first, *(block(channels, planes, spatial_dims=2) for _ in range(depth - 1)))
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (dilation, dilation)
    return stage


class ResNetEncoder(nn.Module):
    """ResNet of MONAI's blocks (He et al., CVPR 2016) whose last stages may be dilated instead of strided.

    MONAI's ``ResNet`` has no dilation and no stem of three convolutions.

    Args:
        in_channels: channels of the input.
        depths: blocks of the four stages; the default is ResNet-34's.
        width: channels of the first stage's convolutions, doubled from stage to stage.
        bottleneck: blocks of three convolutions, with four times the channels at their end, instead of two.
        output_stride: scale at which the downsampling ends, 8, 16 or 32.
        deep_stem: three 3x3 convolutions, with ``2 * width`` channels at their end, instead of one of 7x7.
    """

    def __init__(
        self,
        in_channels: int,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        bottleneck: bool = False,
        output_stride: int = 32,
        deep_stem: bool = False,
    ) -> None:
        super().__init__()
        block = ResNetBottleneck if bottleneck else ResNetBlock
        if deep_stem:
            first = conv_unit(in_channels, width, strides=2, bias=False)
            self.stem = nn.Sequential(first, *conv_row(width, width, 2 * width, bias=False))
        else:
            self.stem = conv_unit(in_channels, width, kernel_size=7, strides=2, bias=False)
        self.channels = [2 * width if deep_stem else width]
        """Channels of the stem and of the four stages."""
        self.stages = nn.ModuleList()
        scale, dilation = 4, 1
        for level, depth in enumerate(depths):
            stride = 2 if level > 0 and scale < output_stride else 1
            scale *= stride
            dilation *= 2 if level > 0 and stride == 1 else 1
            self.stages.append(_stage(block, self.channels[-1], width << level, depth, stride, dilation))
            self.channels.append((width << level) * block.expansion)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of the stem, at 1/2, and of the four stages, from 1/4 down to ``output_stride``."""
        features = [self.stem(x)]
        x = F.max_pool2d(features[0], kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
