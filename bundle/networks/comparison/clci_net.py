"""CLCI-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from bundle.networks.comparison.parts import conv_row, conv_unit
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["CLCINet"]


class FusingLevel(nn.Module):
    """Encoder level of cross-level feature fusion: all finer levels, strided to its size, and two convolutions.

    Args:
        finer: channels of the finer levels, from the finest.
    """

    def __init__(self, finer: list[int]) -> None:
        super().__init__()
        channels = finer[-1]
        strides = [2 << level for level in reversed(range(len(finer)))]
        self.down = nn.ModuleList(conv_unit(c, channels, strides=s) for c, s in zip(finer, strides, strict=True))
        self.fuse = conv_unit(channels * (len(finer) + 1), 8 * channels, kernel_size=1)
        self.convs = conv_row(8 * channels, 2 * channels, 2 * channels)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return ``(B, 2C, H/2, W/2)`` of the finer levels' features, the last of which is ``(B, C, H, W)``."""
        strided = [down(finer) for down, finer in zip(self.down, features, strict=True)]
        return self.convs(self.fuse(torch.cat([F.max_pool2d(features[-1], 2), *strided], dim=1)))


class FusingPyramid(nn.Module):
    """Atrous spatial pyramid pooling of the deepest level, joined by the finer levels strided to its size.

    Args:
        widths: channels of the levels, from the finest.
        channels: channels of each of the nine maps; the output has four times as many.
    """

    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        *finer, deep = widths
        self.down = nn.ModuleList(conv_unit(c, channels, strides=s) for c, s in zip(finer, (16, 8, 4, 2), strict=True))
        self.atrous = nn.ModuleList(
            [
                conv_unit(deep, channels, kernel_size=1),
                *(conv_unit(deep, channels, dilation=rate) for rate in (2, 4, 6)),
            ]
        )
        self.image = conv_unit(deep, channels, kernel_size=1)
        self.join = conv_unit(9 * channels, 4 * channels, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return ``(B, 4 * channels, H/16, W/16)`` of the five levels' features."""
        *finer, deep = features
        maps = [down(level) for down, level in zip(self.down, finer, strict=True)]
        maps += [atrous(deep) for atrous in self.atrous]
        # Expanded before the batch norm, which in train() refuses one value per channel, as in a batch of one slice.
        maps.append(self.image(deep.mean(dim=(2, 3), keepdim=True).expand_as(deep)))
        return self.join(torch.cat(maps, dim=1))


class InferenceLevel(nn.Module):
    """Decoder level of context inference: a convolutional LSTM reads the upsampled features, then the skip.

    Args:
        in_channels: channels of the deeper level.
        channels: channels of the skip and of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.ZeroPad2d((0, 1, 0, 1)),
            conv_unit(in_channels, channels, kernel_size=2, padding=0),
        )
        self.skip = conv_unit(channels, channels, kernel_size=1)
        self.gates = nn.Conv2d(2 * channels, 4 * channels, kernel_size=3, padding=1)
        self.convs = conv_row(channels, channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return ``(B, channels, H, W)`` of ``(B, in_channels, H/2, W/2)`` and the skip ``(B, channels, H, W)``."""
        steps = self.up(x), self.skip(skip)
        hidden = cell = torch.zeros_like(steps[0])
        for step in steps:
            keep, write, candidate, show = self.gates(torch.cat([step, hidden], dim=1)).chunk(4, dim=1)
            cell = keep.sigmoid() * cell + write.sigmoid() * candidate.tanh()
            hidden = show.sigmoid() * cell.tanh()
        return self.convs(hidden)


class CLCINet(SliceStackNetwork):
    """CLCI-Net (Yang et al., MICCAI 2019): cross-level fusion in the encoder, context inference in the decoder.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 16. The thesis gives no
    count; it has 36,813,025 parameters with one input channel and 36,813,889 with four.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 32) -> None:
        super().__init__(in_channels)
        widths = [width << level for level in range(5)]
        self.first = conv_row(in_channels, width, width)
        self.encoder = nn.ModuleList(FusingLevel(widths[:level]) for level in range(1, 5))
        self.dropout = nn.Dropout(0.5)
        self.pyramid = FusingPyramid(widths, 8 * width)
        self.decoder = nn.ModuleList(InferenceLevel(i, o) for i, o in pairwise([32 * width, *widths[3::-1]]))
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        features = [self.first(x)]
        for level in self.encoder:
            features.append(level(features))
        features[-1] = self.dropout(features[-1])
        x = self.dropout(self.pyramid(features))
        for decode, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = decode(x, skip)
        return self.head(x)
