"""The settings of the slice stack U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from monai.utils import look_up_option

__all__ = ["Attention", "Fusion", "Residual", "SliceStackUNetSettings"]

Attention = Literal["patch", "pixel"]
Fusion = Literal["cff", "cff_concatenate", "squeeze_excitation", "add", "concatenate"]
Residual = Literal["coarse", "reverse"]

_LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class SliceStackUNetSettings:
    """The settings of :class:`bundle.networks.SliceStackUNet`. The defaults are D-UNet.

    Raises:
        ValueError: when a value is not one of the choices, or two settings contradict each other.
    """

    in_channels: int = 4
    """Stacked slices, at least 4, so that the 3D branch can be pooled twice."""
    out_channels: int = 1
    """Channels of the logits."""
    features: Sequence[int] = (32, 64, 128, 256, 512)
    """Widths of the five scales 1, 1/2, 1/4, 1/8, 1/16; the 3D branch takes the first three."""
    dropout: float = 0.1
    """Probability of dropout after each branch of a multi-scale block."""
    attention: Attention | None = None
    """``"patch"`` (CPA), ``"pixel"`` (fine attention) or None."""
    patch_grid: int | Sequence[int | Sequence[int]] = 6
    """Patches along each side of the patch attention: one number for all levels, or one for each level from the finest
    to the deepest, or several grids at a level, such as ``(12, 12, 12, 6, (3, 6))``. CRL takes the last grid of the
    deepest level."""
    fusion: Fusion = "squeeze_excitation"
    """How the 3D branch joins the encoder."""
    fusion_reduction: int = 8
    """R of CFF."""
    upsampling_kernels: Sequence[int] = ()
    """Kernel sizes of the decoder's transposed convolutions: ``(3, 5, 7, 9)`` is MDU, one size a plain deconvolution,
    none nearest interpolation and a convolution."""
    encoder_kernels: Sequence[int] = ()
    """Kernel sizes of a multi-scale block after each encoder ConvBlock; none for no block."""
    skip_kernels: Sequence[int] = ()
    """Kernel sizes of a multi-scale block on each skip connection; none for no block."""
    side_outputs: bool = False
    """Whether each decoder level also predicts logits."""
    residual: Residual | None = None
    """Residual learning on the skips: ``"coarse"`` (CRL), ``"reverse"`` (reverse attention alone) or None. The first
    two need ``side_outputs``, CRL also needs ``attention``."""

    def __post_init__(self) -> None:
        look_up_option(self.fusion, get_args(Fusion))
        if self.attention is not None:
            look_up_option(self.attention, get_args(Attention))
        if self.residual is not None:
            look_up_option(self.residual, get_args(Residual))
        if self.in_channels < 4:
            raise ValueError(f"in_channels must be at least 4 (the stacked slices), got {self.in_channels}.")
        if len(self.grids) != _LEVELS or not all(grids and min(grids) > 0 for grids in self.grids):
            raise ValueError(
                f"patch_grid must be one number, or one or several for each of five levels, got {self.patch_grid}."
            )
        if len(self.features) != _LEVELS:
            raise ValueError(f"features must give the widths of five scales, got {tuple(self.features)}.")
        if self.residual is not None and not self.side_outputs:
            raise ValueError(f"residual={self.residual!r} needs the side outputs: set side_outputs to true.")
        if self.residual == "coarse" and self.attention is None:
            raise ValueError("residual='coarse' needs the deepest attention map: set attention to 'patch' or 'pixel'.")

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """Grids of the patch attention at each level, from the finest to the deepest."""
        levels = [self.patch_grid] * _LEVELS if isinstance(self.patch_grid, int) else self.patch_grid
        return [(grids,) if isinstance(grids, int) else tuple(grids) for grids in levels]

    @property
    def min_size(self) -> int:
        """Smallest height and width: a multiple of 16 with a pixel for each patch at every scale."""
        pixels = max(max(grids) * 2**level for level, grids in enumerate(self.grids))
        return -(-pixels // 16) * 16
