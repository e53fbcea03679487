"""Convolution blocks that the networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import TwoConv
from torch import nn
from torch.nn import functional as F

__all__ = ["ConvBlock", "MultiScaleConvolution", "VolumeConvolution"]


class VolumeConvolution(nn.Conv3d):
    """Convolution 3x3x3 with bias that keeps the size; few slices are computed as channels of a 2D convolution.

    Padding makes a 3D convolution of one or two slices multiply by zeros: with one slice, two of the kernel's three
    planes meet nothing else. With the slices as channels nothing is wasted, and it is the faster way up to two slices;
    for a single channel, at which oneDNN's 3D convolutions are slow, up to four. It also goes around an error of
    oneDNN: with torch 2.13.0 the bfloat16 gradient of the weights of a 3D convolution is wrong, or NaN, at depth 2.

    Args:
        in_channels: channels of the input ``(B, in_channels, S, H, W)``.
        out_channels: channels of the output ``(B, out_channels, S, H, W)``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``(B, in_channels, S, H, W)`` to ``(B, out_channels, S, H, W)``."""
        slices = input.shape[2]
        if slices > (4 if self.in_channels == 1 else 2):
            return F.conv3d(input, self.weight, self.bias, padding=1)
        bias = self.bias
        if bias is not None:  # always; TorchScript asks
            bias = bias.repeat_interleave(slices)
        planes = F.conv2d(input.flatten(1, 2), self._plane_weight(slices), bias, padding=1)
        return planes.unflatten(1, (self.out_channels, slices))

    def _plane_weight(self, slices: int) -> torch.Tensor:
        """The weight ``(out_channels * slices, in_channels * slices, 3, 3)`` between slices that are channels.

        From slice i to slice o leads the kernel's plane 1 + i - o; beyond the kernel's three planes there is 0.
        """
        beyond = max(slices - 2, 0)
        weight = F.pad(self.weight, (0, 0, 0, 0, beyond, beyond))
        first = 1 + beyond
        windows = [weight[:, :, first - out : first - out + slices] for out in range(slices)]
        return torch.stack(windows, dim=1).flatten(2, 3).flatten(0, 1)


class ConvBlock(TwoConv):
    """(conv 3x3 with bias, batch norm, ReLU) twice; 3x3x3 when ``spatial_dims`` is 3 (thesis 2.2).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input ``(B, in_channels, ...)``.
        out_channels: channels of the output ``(B, out_channels, ...)``, of the input's spatial size.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, act="relu", norm="batch", bias=True)
        if spatial_dims == 3:
            self.conv_0.conv = VolumeConvolution(in_channels, out_channels)
            self.conv_1.conv = VolumeConvolution(out_channels, out_channels)


class MultiScaleConvolution(nn.Module):
    """Parallel convolutions of several kernel sizes, each followed by BN, ReLU and dropout, concatenated.

    With ``transposed`` it is the thesis's MDU, multi-scale deconvolution upsampling (3.4); without, the same block at
    stride 1, which table 3.8 puts into the encoder or on the skip connections.

    Args:
        channels: channels of the input and of the output; every kernel size gives an equal share of them.
        kernel_sizes: odd kernel sizes; one size gives a plain (transposed) convolution.
        dropout: probability of dropout behind each branch.
        transposed: upsample by 2 with transposed convolutions instead of keeping the size.

    Raises:
        ValueError: when ``channels`` is not a multiple of the number of kernel sizes, or a size is even.
    """

    def __init__(
        self, channels: int, kernel_sizes: Sequence[int], dropout: float = 0.1, transposed: bool = False
    ) -> None:
        super().__init__()
        if channels % len(kernel_sizes):
            raise ValueError(f"{channels} channels cannot be shared by {len(kernel_sizes)} kernel sizes equally.")
        if any(size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, got {tuple(kernel_sizes)}.")
        self.branches = nn.ModuleList(
            Convolution(
                spatial_dims=2,
                in_channels=channels,
                out_channels=channels // len(kernel_sizes),
                strides=2 if transposed else 1,
                kernel_size=size,
                adn_ordering="NAD",
                act="relu",
                norm="batch",
                dropout=dropout,
                is_transposed=transposed,
            )
            for size in kernel_sizes
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, channels, H, W)`` to ``(B, channels, 2H, 2W)`` if transposed, else ``(B, channels, H, W)``."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)
