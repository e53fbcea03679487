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
    """Convolution 3x3x3 with bias that keeps the size, with a right gradient on every CPU.

    With torch 2.13.0, oneDNN's bfloat16 gradient of the weights is wrong, or NaN, when the depth is 2 and the padding
    is left to the convolution; with the slices padded beforehand it is right, and the result is the same.

    Args:
        in_channels: channels of the input ``(B, in_channels, S, H, W)``.
        out_channels: channels of the output ``(B, out_channels, S, H, W)``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``(B, in_channels, S, H, W)`` to ``(B, out_channels, S, H, W)``."""
        if self.training and input.shape[2] == 2:
            padded = F.pad(input, (0, 0, 0, 0, 1, 1))
            return F.conv3d(padded, self.weight, self.bias, padding=(0, 1, 1))
        return F.conv3d(input, self.weight, self.bias, padding=1)


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
