"""Convolution blocks that the networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import TwoConv
from torch import nn
from torch.nn import functional as F

__all__ = ["ChannelProjection", "ConvBlock", "MultiScaleConvolution", "VolumeConvolution", "slices_as_channels"]


def slices_as_channels(volume: torch.Tensor) -> torch.Tensor:
    """Return ``(B, S * C, H, W)`` of ``(B, C, H, W, S)``, slice by slice: a view if the input is channels last."""
    return volume.permute(0, 4, 1, 2, 3).flatten(1, 2)


class VolumeConvolution(nn.Conv3d):
    """Convolution 3x3x3 with bias that keeps the size, computed as a 2D convolution whose channels are the slices'.

    Intended for stacks of a few slices: padding makes a 3D convolution of one or two slices multiply by zeros, which is
    avoided here, and 2D convolutions of many channels are what processors are fastest at. It also works around bugs of
    oneDNN in torch 2.13.0: the bfloat16 gradient of a 3D convolution's weights is wrong or NaN at depth 2 (AVX-512) and
    at depth 4 (AMX), and convolutions 3x3x3 and 1x1x1 have been seen to crash with AMX.

    Args:
        in_channels: channels of the input ``(B, in_channels, H, W, S)``.
        out_channels: channels of the output ``(B, out_channels, H, W, S)``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``(B, out_channels, H, W, S)``; an input that is channels last in memory is not copied."""
        slices = input.shape[4]
        bias = self.bias
        if bias is not None:  # always true; for TorchScript
            bias = bias.repeat(slices)
        channels = F.conv2d(slices_as_channels(input), self.weight_2d(slices), bias, padding=1)
        return channels.unflatten(1, (slices, self.out_channels)).permute(0, 2, 3, 4, 1)

    def weight_2d(self, slices: int) -> torch.Tensor:
        """Return the weight ``(slices * out_channels, slices * in_channels, 3, 3)`` between slices as channels.

        Input slice i contributes to output slice o by the kernel's slice 1 + i - o, or by 0 where there is none.
        """
        beyond = max(slices - 2, 0)
        weight = F.pad(self.weight, (beyond, beyond)).permute(0, 4, 1, 2, 3)  # out, kernel slice, in, 3, 3
        first = 1 + beyond
        windows = [weight[:, first - out : first - out + slices].flatten(1, 2) for out in range(slices)]
        return torch.cat(windows)


class ChannelProjection(nn.Conv3d):
    """Convolution 1x1x1 to one channel, computed as a matrix product; see :class:`VolumeConvolution` for why.

    Args:
        channels: C of the input ``(B, C, H, W, S)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, kernel_size=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``(B, 1, H, W, S)`` of ``(B, C, H, W, S)``."""
        return F.linear(input.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


class ConvBlock(TwoConv):
    """(conv 3x3 with bias, batch norm, ReLU) twice; 3x3x3 when ``spatial_dims`` is 3 (thesis 2.2).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input ``(B, in_channels, ...)``.
        out_channels: channels of the output ``(B, out_channels, ...)``, which has the input's spatial size.
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
        dropout: probability of dropout after each branch.
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
        """Return ``(B, channels, 2H, 2W)`` if transposed, else ``(B, channels, H, W)``."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)
