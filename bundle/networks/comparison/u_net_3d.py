"""3D U-Net on a stack of slices."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bundle.networks.blocks import VolumeConvolution
from bundle.networks.comparison.parts import encode
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["UNet3D"]


def _row(*channels: int) -> nn.Sequential:
    """Return 3x3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for i, o in pairwise(channels):
        layers += [VolumeConvolution(i, o), nn.BatchNorm3d(o), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class SliceUpsampling(nn.ConvTranspose2d):
    """Transposed convolution 2x2x1 with stride 2x2x1, which upsamples each slice on its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=2, stride=2)

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Return ``(B, C, 2H, 2W, S)`` of ``(B, C, H, W, S)``."""
        slices = input.permute(0, 4, 1, 2, 3)
        upsampled = super().forward(slices.flatten(0, 1), output_size)
        return upsampled.unflatten(0, slices.shape[:2]).permute(0, 2, 3, 4, 1)


class UNet3D(SliceStackNetwork):
    """3D U-Net (Çiçek et al., MICCAI 2016) over the stack's slices as a volume, pooled in-plane only.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)`` of one of the slices, H and W multiples of 8. The
    thesis does not specify its 3D U-Net's input. Here it is that of the other networks: the stack as a one-channel
    volume ``(B, 1, H, W, S)``, too thin to be pooled across the slices, one of which is picked before the last
    convolution. It has 17,697,409 parameters; the paper's up-convolutions are 2x2x2. Its convolutions are
    ``VolumeConvolution``, for the reasons given there; MONAI's ``UNet`` uses strides instead of pooling.

    Args:
        in_channels: stacked slices, S.
        out_channels: channels of the logits.
        width: channels of the first convolution; each scale ends with twice as many as the one above.
        own_slice: position in the stack of the slice whose logits are returned.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 32, own_slice: int = 2) -> None:
        super().__init__(in_channels, divisor=8)
        if not 0 <= own_slice < in_channels:
            raise ValueError(f"own_slice must be 0..{in_channels - 1}, the slices of the stack, got {own_slice}.")
        self.own_slice = own_slice
        widths = [2 * width << level for level in range(4)]
        self.encoder = nn.ModuleList(_row(i, o // 2, o) for i, o in pairwise([1, *widths]))
        steps = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(SliceUpsampling(i) for i, _ in steps)
        self.decoder = nn.ModuleList(_row(i + o, o, o) for i, o in steps)
        self.head = nn.Conv2d(widths[0], out_channels, kernel_size=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        x = x.permute(0, 2, 3, 1).unsqueeze(1)
        *skips, x = encode(self.encoder, x, nn.MaxPool3d((2, 2, 1)))
        for up, level, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = level(torch.cat([skip, up(x)], dim=1))
        return self.head(x[..., self.own_slice])
