"""The 3D branch as 2D convolutions for inference, with slices as channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from bundle.networks.blocks import ChannelProjection, ConvBlock, VolumeConvolution

__all__ = ["InferenceBranch", "SliceConvolution", "inference_projection"]


class SliceConvolution(nn.Module):
    """A :class:`VolumeConvolution` and its ReLU, with slices as channels.

    Args:
        convolution: with the following batch norm folded in.
        slices: S of the input.
        apart: compute each output slice by itself, from the slices that the kernel reaches. Otherwise they are one 2D
            convolution, which also multiplies the pairs of slices that are not neighbours with zeros: of four slices,
            16 pairs instead of 10.
    """

    def __init__(self, convolution: VolumeConvolution, slices: int, apart: bool = False) -> None:
        super().__init__()
        channels, out_channels = convolution.in_channels, convolution.out_channels
        weight, bias = convolution.weight_2d(slices).detach(), cast(torch.Tensor, convolution.bias).detach()
        self.reached: list[tuple[int, int]] = []
        self.groups = nn.ModuleList()
        for begin, end in [(own, own + 1) for own in range(slices)] if apart else [(0, slices)]:
            first, last = max(begin - 1, 0) * channels, min(end + 1, slices) * channels
            conv = nn.Conv2d(last - first, (end - begin) * out_channels, kernel_size=3, padding=1)
            group = weight[begin * out_channels : end * out_channels, first:last]
            conv.weight = nn.Parameter(group.contiguous(memory_format=torch.channels_last), requires_grad=False)
            conv.bias = nn.Parameter(bias.repeat(end - begin), requires_grad=False)
            self.groups.append(conv)
            self.reached.append((first, last))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return ``(B, out_channels, H, W)`` for each slice, or all in one, of ``(B, S * in_channels, H, W)``."""
        reached = zip(self.groups, self.reached, strict=True)
        return [F.relu(conv(x[:, first:last]), inplace=True) for conv, (first, last) in reached]


class InferenceBranch(nn.Module):
    """The 3D branch of a network like :class:`VolumeBranch`, with the slices of its features as channels.

    Args:
        levels: with batch norms folded in.
        slices: number of slices in a stack.
    """

    def __init__(self, levels: Iterable[ConvBlock], slices: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for depth, level in enumerate(levels):
            first, second = (cast(VolumeConvolution, part.conv) for part in (level.conv_0, level.conv_1))
            left = slices >> depth
            # With two slices the kernel reaches both from each: computed apart they would only be slower.
            pair = SliceConvolution(first, left), SliceConvolution(second, left, apart=left > 2)
            self.levels.append(nn.Sequential(*pair))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features ``(B, S / 2 * C, H / 2, W / 2)`` and ``(B, S / 4 * C, H / 4, W / 4)`` of stacks."""
        features: list[torch.Tensor] = []
        maps: list[torch.Tensor] = []
        for first, second in cast(Iterable[nn.Sequential], self.levels):
            inner = len(maps) > 0
            maps = second(first(_halved(maps) if inner else x)[0])
            if inner:
                features.append(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0])
        return features


def _halved(maps: list[torch.Tensor]) -> torch.Tensor:
    """Return ``F.max_pool3d(..., 2)`` of slices as channels; an odd slice at the end is dropped as well."""
    if len(maps) == 1:
        maps = list(maps[0].chunk(2, dim=1))  # only pairs of slices are not computed apart
    pairs = zip(maps[::2], maps[1::2], strict=False)
    return torch.cat([F.max_pool2d(torch.maximum(one, other), 2) for one, other in pairs], dim=1)


def inference_projection(project: nn.Sequential) -> nn.Sequential:
    """Return a ``SliceProjection`` for slices as channels: a 1 x 1 convolution with the same weights for each."""
    channel, _, convolution, *rest = project
    channel, slices = cast(ChannelProjection, channel), cast(nn.Conv2d, convolution).in_channels
    each = nn.Conv2d(slices * channel.in_channels, slices, kernel_size=1, groups=slices)
    each.weight = nn.Parameter(channel.weight.detach().flatten(2).repeat(slices, 1, 1)[..., None], requires_grad=False)
    each.bias = nn.Parameter(cast(torch.Tensor, channel.bias).detach().repeat(slices), requires_grad=False)
    return nn.Sequential(each, convolution, *rest)
