"""The one network of this bundle: a 2D U-Net over a stack of slices, joined by a small 3D branch.

D-UNet, AGMR-Net and TSRL-Net are settings of it; so is every ablation of the thesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

import torch
from monai.networks.blocks import Convolution
from monai.utils import look_up_option
from torch import nn
from torch.nn import functional as F

from bundle.networks.attention import CoarsePatchAttention, MixedPatchAttention, PixelAttention
from bundle.networks.blocks import ConvBlock, MultiScaleConvolution
from bundle.networks.fusion import AddFusion, ConcatenateFusion, CrossDimensionFusion, SqueezeExcitationFusion
from bundle.networks.residual import CoarseResidual, ReverseAttention

__all__ = ["NetworkOutput", "Settings", "SliceStackUNet"]

Attention = Literal["patch", "pixel"]
Fusion = Literal["cff", "cff_concatenate", "squeeze_excitation", "add", "concatenate"]
FusionModule = AddFusion | ConcatenateFusion | CrossDimensionFusion | SqueezeExcitationFusion
Residual = Literal["coarse", "reverse"]

_LEVELS = 5


class NetworkOutput(NamedTuple):
    """What a network gives in training.

    Attributes:
        logits: of the stack's own slice, ``(B, out_channels, H, W)``.
        side_logits: of the decoder levels, from the deepest (1/8) to the finest (1/1); empty without side outputs.
        patch_scores: of the encoder levels, from the finest to the deepest, each ``(B, 1, 6, 6)`` in 0..1, or of
            another grid; one for each grid where a level has several; empty without patch attention.
    """

    logits: torch.Tensor
    side_logits: list[torch.Tensor]
    patch_scores: list[torch.Tensor]


class Settings(TypedDict, total=False):
    """The arguments of :class:`SliceStackUNet`, for its named settings."""

    in_channels: int
    out_channels: int
    features: Sequence[int]
    dropout: float
    attention: Attention | None
    patch_grid: int | Sequence[int | Sequence[int]]
    fusion: Fusion
    fusion_reduction: int
    upsampling_kernels: Sequence[int]
    encoder_kernels: Sequence[int]
    skip_kernels: Sequence[int]
    side_outputs: bool
    residual: Residual | None


def _fusion(name: Fusion, channels: int, slices: int, reduction: int) -> FusionModule:
    if name in ("cff", "cff_concatenate"):
        return CrossDimensionFusion(channels, slices, reduction, concatenate=name == "cff_concatenate")
    if name == "squeeze_excitation":
        return SqueezeExcitationFusion(channels, slices)
    return AddFusion(channels, slices) if name == "add" else ConcatenateFusion(channels, slices)


def _upsampling(in_channels: int, channels: int, kernels: Sequence[int], dropout: float) -> nn.Sequential:
    """``(B, in_channels, H, W)`` to ``(B, channels, 2H, 2W)``: interpolation without kernels, else MDU (thesis 3.4)."""
    if not kernels:
        reduce = Convolution(2, in_channels, channels, act="relu", norm=None)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), reduce)
    return nn.Sequential(
        MultiScaleConvolution(in_channels, kernels, dropout, transposed=True),
        Convolution(2, in_channels, channels, act="relu", norm="batch"),
    )


def _grids(patch_grid: int | Sequence[int | Sequence[int]]) -> list[tuple[int, ...]]:
    """Of the patch attention, for each level from the finest to the deepest."""
    levels = [patch_grid] * _LEVELS if isinstance(patch_grid, int) else patch_grid
    return [(grids,) if isinstance(grids, int) else tuple(grids) for grids in levels]


def _attention(name: Attention | None, channels: int, grids: Sequence[int]) -> nn.Module | None:
    if name == "patch":
        return CoarsePatchAttention(grids[0]) if len(grids) == 1 else MixedPatchAttention(grids)
    return PixelAttention(channels) if name == "pixel" else None


class EncoderLevel(nn.Module):
    """ConvBlock, optional multi-scale block, optional attention; gives the features and the attention's scores."""

    def __init__(self, in_channels: int, channels: int, grids: Sequence[int], settings: Settings) -> None:
        super().__init__()
        self.conv = ConvBlock(2, in_channels, channels)
        kernels = settings["encoder_kernels"]
        self.multi_scale = MultiScaleConvolution(channels, kernels, settings["dropout"]) if kernels else nn.Identity()
        self.attention = _attention(settings["attention"], channels, grids)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """``(B, in_channels, H, W)`` to ``(B, channels, H, W)`` and the attention's scores, none without attention."""
        x = self.multi_scale(self.conv(x))
        scores: list[torch.Tensor] = []
        if self.attention is not None:
            x, scores = self.attention(x)
        return x, scores


class DecoderLevel(nn.Module):
    """Upsampling, optional side output, what the skip hands over, ConvBlock (thesis 3.4, 4.2)."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int, settings: Settings) -> None:
        super().__init__()
        dropout, kernels, out_channels = settings["dropout"], settings["skip_kernels"], settings["out_channels"]
        self.up = _upsampling(in_channels, channels, settings["upsampling_kernels"], dropout)
        self.skip = MultiScaleConvolution(skip_channels, kernels, dropout) if kernels else nn.Identity()
        self.side: nn.Module | None = None
        if settings["side_outputs"]:
            self.side = nn.Sequential(
                Convolution(2, channels, channels // 4, adn_ordering="NAD", act="relu", norm="batch", dropout=0.1),
                nn.Conv2d(channels // 4, out_channels, kernel_size=1),
            )
        self.residual: nn.Module | None = None
        if settings["residual"] is not None:
            self.residual = CoarseResidual() if settings["residual"] == "coarse" else ReverseAttention()
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
        """``(B, S, H, W)`` to the features at scales 1/2 and 1/4, ``(B, C, H, W, S)``."""
        features: list[torch.Tensor] = []
        x = x.permute(0, 2, 3, 1).unsqueeze(1)
        for level, conv in enumerate(self):
            x = conv(F.max_pool3d(x, 2) if level > 0 else x)
            if level > 0:
                features.append(x)
        return features


class SliceStackUNet(nn.Module):
    """2D encoder over a stack of slices, 3D branch, fusion, attention, upsampling and residual learning, each a choice.

    Source: D-UNet (Zhou et al., IEEE/ACM TCBB 2021), AGMR-Net and TSRL-Net (Ma K., master's thesis, Anhui University,
    2023, chapters 3 and 4). The defaults are D-UNet.

    In ``train()`` the network gives a :class:`NetworkOutput`; in ``eval()`` the logits alone, not a probability.

    Args:
        in_channels: stacked slices, at least 4, so that the 3D branch can be pooled twice.
        out_channels: channels of the logits.
        features: widths of the five scales 1, 1/2, 1/4, 1/8, 1/16; the 3D branch takes the first three.
        dropout: probability of dropout behind each branch of a multi-scale block.
        attention: ``"patch"`` (CPA), ``"pixel"`` (fine attention) or None.
        patch_grid: patches along each side of the patch attention: one number for all levels, or one for each, from
            the finest to the deepest, where several stand for several grids at that level, such as
            ``(12, 12, 12, 6, (3, 6))``. CRL looks at the deepest level's last.
        fusion: how the 3D branch joins the encoder: ``"cff"``, ``"cff_concatenate"``, ``"squeeze_excitation"``,
            ``"add"`` or ``"concatenate"``.
        fusion_reduction: R of CFF.
        upsampling_kernels: kernel sizes of the decoder's transposed convolutions: ``(3, 5, 7, 9)`` is MDU, one size a
            plain deconvolution, none nearest interpolation and a convolution.
        encoder_kernels: kernel sizes of a multi-scale block behind each encoder ConvBlock; none for no block.
        skip_kernels: the same on each skip connection.
        side_outputs: whether each decoder level predicts logits of its own.
        residual: what reaches the decoder over the skips: ``"coarse"`` (CRL), ``"reverse"`` (reverse attention alone)
            or None (the features as they are). The first two need ``side_outputs``, CRL also an ``attention``.

    Raises:
        ValueError: when the settings contradict each other, or the input's size does not fit.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 1,
        features: Sequence[int] = (32, 64, 128, 256, 512),
        dropout: float = 0.1,
        attention: Attention | None = None,
        patch_grid: int | Sequence[int | Sequence[int]] = 6,
        fusion: Fusion = "squeeze_excitation",
        fusion_reduction: int = 8,
        upsampling_kernels: Sequence[int] = (),
        encoder_kernels: Sequence[int] = (),
        skip_kernels: Sequence[int] = (),
        side_outputs: bool = False,
        residual: Residual | None = None,
    ) -> None:
        super().__init__()
        settings = Settings(
            in_channels=in_channels,
            out_channels=out_channels,
            features=features,
            dropout=dropout,
            attention=attention,
            patch_grid=patch_grid,
            fusion=fusion,
            fusion_reduction=fusion_reduction,
            upsampling_kernels=upsampling_kernels,
            encoder_kernels=encoder_kernels,
            skip_kernels=skip_kernels,
            side_outputs=side_outputs,
            residual=residual,
        )
        _check(settings)
        self.in_channels = in_channels
        self.divisor = 16  # four poolings
        grids = _grids(patch_grid)
        # A pixel for each patch at every scale.
        pixels = max(max(of_level) * 2**level for level, of_level in enumerate(grids))
        self.min_size = -(-pixels // self.divisor) * self.divisor
        self.patch_attention = attention == "patch"
        self.side_outputs = side_outputs

        f = list(features)
        self.volume_levels: nn.Module = VolumeBranch(f[:3])
        fuse_half = _fusion(fusion, f[1], in_channels // 2, fusion_reduction)
        fuse_quarter = _fusion(fusion, f[2], in_channels // 4, fusion_reduction)
        self.fuse_half, self.fuse_quarter = fuse_half, fuse_quarter
        joined = [f[0], fuse_half.out_channels, fuse_quarter.out_channels, f[3], f[4]]
        self.encoder = nn.ModuleList(
            EncoderLevel(i, o, of_level, settings)
            for i, o, of_level in zip([in_channels, *joined[:4]], f, grids, strict=True)
        )
        self.decoder = nn.ModuleList(DecoderLevel(f[i + 1], joined[i], f[i], settings) for i in (3, 2, 1, 0))
        self.head = nn.Conv2d(f[0], out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | NetworkOutput:
        """
        Args:
            x: stacks of slices ``(B, in_channels, H, W)``, H and W multiples of 16 and at least 96.

        Returns:
            in ``train()`` a :class:`NetworkOutput`, in ``eval()`` (and under TorchScript) the logits
            ``(B, out_channels, H, W)``.

        Raises:
            ValueError: when the shape is another.
        """
        self._check_input(x)
        # Channels last in memory: with AMX bfloat16 convolutions are three times as fast, and the 3D branch needs no
        # copies.
        x = x.contiguous(memory_format=torch.channels_last)
        volumes: list[torch.Tensor] = self.volume_levels(x)
        skips: list[torch.Tensor] = []
        patch_scores: list[torch.Tensor] = []
        attention = x
        for level, encode in enumerate(self.encoder):
            x, scores = encode(F.max_pool2d(x, 2) if level > 0 else x)
            if level == 1:
                x = self.fuse_half(volumes[0], x)
            elif level == 2:
                x = self.fuse_quarter(volumes[1], x)
            skips.append(x)
            if len(scores) > 0:
                attention = scores[-1]
            if self.patch_attention:
                patch_scores += scores

        side_logits: list[torch.Tensor] = []
        for level, decode in enumerate(self.decoder):
            x, side = decode(x, skips[3 - level], attention)
            if self.side_outputs:
                side_logits.append(side)
        logits: torch.Tensor = self.head(x)
        # torch does not list is_scripting; behind the ignore TorchScript allows no comment.
        if torch.jit.is_scripting() or not self.training:  # type: ignore[attr-defined]
            return logits
        return NetworkOutput(logits, side_logits, patch_scores)

    def _check_input(self, x: torch.Tensor) -> None:
        height, width = x.shape[-2], x.shape[-1]
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"The input must be (B, {self.in_channels}, H, W), got {list(x.shape)}.")
        if height % self.divisor or width % self.divisor or min(height, width) < self.min_size:
            fit_height = max(self.min_size, (height + self.divisor - 1) // self.divisor * self.divisor)
            fit_width = max(self.min_size, (width + self.divisor - 1) // self.divisor * self.divisor)
            raise ValueError(
                f"H and W must be multiples of {self.divisor} and at least {self.min_size}, got {height} x {width}: "
                f"pad the slices to {fit_height} x {fit_width}."
            )


def _check(settings: Settings) -> None:
    """Refuses settings that do not exist or contradict each other."""
    for name, kind in (("attention", Attention), ("fusion", Fusion), ("residual", Residual)):
        value = settings[name]  # type: ignore[literal-required]  # the three names are keys of Settings
        if value is not None or name == "fusion":
            look_up_option(value, kind.__args__)  # type: ignore[attr-defined]  # Literal keeps its choices there
    if settings["in_channels"] < 4:
        raise ValueError(f"in_channels must be at least 4 (the stacked slices), got {settings['in_channels']}.")
    grids = _grids(settings["patch_grid"])
    if len(grids) != _LEVELS or not all(of_level and min(of_level) > 0 for of_level in grids):
        raise ValueError(
            f"patch_grid must be one number, or one or several for each of five levels, got {settings['patch_grid']}."
        )
    if len(settings["features"]) != _LEVELS:
        raise ValueError(f"features must give the widths of five scales, got {tuple(settings['features'])}.")
    if settings["residual"] is not None and not settings["side_outputs"]:
        raise ValueError(f"residual={settings['residual']!r} looks at the side outputs: set side_outputs to true.")
    if settings["residual"] == "coarse" and settings["attention"] is None:
        raise ValueError("residual='coarse' looks at the deepest attention map: set attention to 'patch' or 'pixel'.")
