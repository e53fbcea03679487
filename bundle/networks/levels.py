"""The parts that the slice stack U-Net is assembled from: encoder levels, decoder levels and the 3D branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

from bundle.networks.attention import CoarsePatchAttention, MixedPatchAttention, PixelAttention
from bundle.networks.blocks import ConvBlock, MultiScaleConvolution
from bundle.networks.residual import CoarseResidual, ReverseAttention
from bundle.networks.settings import SliceStackUNetSettings

__all__ = ["DecoderLevel", "EncoderLevel", "VolumeBranch"]


def _upsampling(in_channels: int, channels: int, kernels: Sequence[int], dropout: float) -> nn.Sequential:
    """Return upsampling by 2 to ``(B, channels, 2H, 2W)``: interpolation without kernels, else MDU (thesis 3.4)."""
    if not kernels:
        reduce = Convolution(2, in_channels, channels, act="relu", norm=None)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), reduce)
    return nn.Sequential(
        MultiScaleConvolution(in_channels, kernels, dropout, transposed=True),
        Convolution(2, in_channels, channels, act="relu", norm="batch"),
    )


def _attention(channels: int, grids: Sequence[int], settings: SliceStackUNetSettings) -> nn.Module | None:
    if settings.attention == "patch":
        return CoarsePatchAttention(grids[0]) if len(grids) == 1 else MixedPatchAttention(grids)
    return PixelAttention(channels) if settings.attention == "pixel" else None


class EncoderLevel(nn.Module):
    """ConvBlock with an optional multi-scale block and optional attention.

    Args:
        in_channels: channels of the input.
        channels: channels of the features.
        grids: of the patch attention at this level.
        settings: of the network.
    """

    def __init__(self, in_channels: int, channels: int, grids: Sequence[int], settings: SliceStackUNetSettings) -> None:
        super().__init__()
        self.conv = ConvBlock(2, in_channels, channels)
        kernels, dropout = settings.encoder_kernels, settings.dropout
        self.multi_scale = MultiScaleConvolution(channels, kernels, dropout) if kernels else nn.Identity()
        self.attention = _attention(channels, grids, settings)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the features ``(B, channels, H, W)`` and the attention's scores, an empty list without attention."""
        x = self.multi_scale(self.conv(x))
        scores: list[torch.Tensor] = []
        if self.attention is not None:
            x, scores = self.attention(x)
        return x, scores


class DecoderLevel(nn.Module):
    """Upsampling, optional side output, optional residual learning on the skip, and a ConvBlock (thesis 3.4, 4.2).

    Args:
        in_channels: channels of the deeper level's features.
        skip_channels: channels of the encoder's features.
        channels: channels of the features.
        settings: of the network.
    """

    def __init__(self, in_channels: int, skip_channels: int, channels: int, settings: SliceStackUNetSettings) -> None:
        super().__init__()
        kernels, dropout = settings.skip_kernels, settings.dropout
        self.up = _upsampling(in_channels, channels, settings.upsampling_kernels, dropout)
        self.skip = MultiScaleConvolution(skip_channels, kernels, dropout) if kernels else nn.Identity()
        self.side: nn.Module | None = None
        if settings.side_outputs:
            self.side = nn.Sequential(
                Convolution(2, channels, channels // 4, adn_ordering="NAD", act="relu", norm="batch", dropout=0.1),
                nn.Conv2d(channels // 4, settings.out_channels, kernel_size=1),
            )
        self.residual: nn.Module | None = None
        if settings.residual is not None:
            self.residual = CoarseResidual() if settings.residual == "coarse" else ReverseAttention()
        self.conv = ConvBlock(2, skip_channels + channels, channels)

    def forward(
        self, x: torch.Tensor, skip: torch.Tensor, attention: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            x: the deeper level's features ``(B, in_channels, H/2, W/2)``.
            skip: the encoder's features ``(B, skip_channels, H, W)``.
            attention: the deepest attention map ``(B, 1, h, w)``.

        Returns:
            features ``(B, channels, H, W)`` and side logits ``(B, out_channels, H, W)``, empty without a side output.
        """
        up = self.up(x)
        skip = self.skip(skip)
        side_logits = up.new_empty(0)
        if self.side is not None:
            side_logits = self.side(up)
            if self.residual is not None:
                # With several classes a pixel counts as found when any of them has found it.
                found = torch.sigmoid(side_logits).amax(dim=1, keepdim=True)
                skip = self.residual(skip, found, attention)
        return self.conv(torch.cat([skip, up], dim=1)), side_logits


class VolumeBranch(nn.Sequential):
    """The 3D branch: a ConvBlock at each of three scales, max-pooled in between (thesis 2.2).

    Args:
        features: widths of the scales 1, 1/2 and 1/4.
    """

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__(*(ConvBlock(3, i, o) for i, o in zip([1, *features[:-1]], features, strict=True)))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of ``(B, S, H, W)`` at scales 1/2 and 1/4, ``(B, C, H, W, S)``."""
        features: list[torch.Tensor] = []
        x = x.permute(0, 2, 3, 1).unsqueeze(1)
        for level, conv in enumerate(self):
            x = conv(F.max_pool3d(x, 2) if level > 0 else x)
            if level > 0:
                features.append(x)
        return features
