"""X-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bundle.networks.comparison.parts import conv_unit, encode
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["XNet"]


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a depthwise 3x3 and a 1x1 convolution."""
    return nn.Sequential(
        conv_unit(in_channels, in_channels, groups=in_channels, bias=False),
        conv_unit(in_channels, out_channels, kernel_size=1),
    )


class XBlock(nn.Module):
    """Three depthwise separable convolutions with a 1x1 shortcut."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.shortcut = conv_unit(in_channels, channels, kernel_size=1)
        self.convs = nn.Sequential(*(_separable(i, channels) for i in (in_channels, channels, channels)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(B, channels, H, W)`` of ``(B, in_channels, H, W)``."""
        return self.convs(x) + self.shortcut(x)


class FeatureSimilarity(nn.Module):
    """Feature similarity module: the similarity of each pixel to all others, on an eighth of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, inner = channels // 8, channels // 16
        self.narrow = conv_unit(channels, narrow)
        self.query, self.key, self.value = (nn.Conv2d(narrow, inner, kernel_size=1, bias=False) for _ in range(3))
        self.out = nn.Conv2d(inner, narrow, kernel_size=1, bias=False)
        self.widen = conv_unit(narrow, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the input's shape ``(B, channels, H, W)``."""
        features = self.narrow(x)
        query, key, value = (layer(features).flatten(2) for layer in (self.query, self.key, self.value))
        # Without a softmax the sum over the pixels can be taken first, without the H * W x H * W similarities.
        summary = value @ key.transpose(1, 2) / key.shape[2]
        similar = (summary @ query).unflatten(2, features.shape[2:])
        return self.widen(features + self.out(similar)) + x


class XNet(SliceStackNetwork):
    """X-Net (Qi et al., MICCAI 2019): a U-Net of depthwise separable convolutions with a non-local bottom.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 16. With one input channel
    it has the thesis's 15,072,332 parameters, with four 15,072,749.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 64) -> None:
        super().__init__(in_channels)
        widths = [width << level for level in range(5)]
        self.encoder = nn.ModuleList(XBlock(i, o) for i, o in pairwise([in_channels, *widths]))
        self.similarity = FeatureSimilarity(widths[-1])
        steps = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.Sequential(nn.Upsample(scale_factor=2), conv_unit(i, o)) for i, o in steps)
        self.decoder = nn.ModuleList(XBlock(2 * c, c) for _, c in steps)
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        *skips, x = encode(self.encoder, x)
        x = self.similarity(x)
        for up, level, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = level(torch.cat([skip, up(x)], dim=1))
        return self.head(x)
