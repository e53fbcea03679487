"""The network of this bundle: a 2D U-Net over a stack of slices, joined by a small 3D branch.

D-UNet, AGMR-Net, TSRL-Net and every ablation of the thesis are settings of it.
"""

from __future__ import annotations

from inspect import Signature, signature
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from bundle.networks.fusion import make_fusion
from bundle.networks.levels import DecoderLevel, EncoderLevel, VolumeBranch
from bundle.networks.settings import SliceStackUNetSettings
from bundle.networks.slice_stack_network import NetworkOutput, SliceStackNetwork

__all__ = ["SliceStackUNet"]


class SliceStackUNet(SliceStackNetwork):
    """2D U-Net over a stack of slices with a 3D branch; fusion, attention, upsampling, residual learning are settings.

    Source: D-UNet (Zhou et al., IEEE/ACM TCBB 2021), AGMR-Net and TSRL-Net (Ma K., master's thesis, Anhui University,
    2023, chapters 3 and 4). The defaults are D-UNet.

    The network returns a :class:`NetworkOutput` in ``train()`` and the logits alone, not a probability, in ``eval()``.

    Args:
        settings: the fields of :class:`bundle.networks.settings.SliceStackUNetSettings`.

    Raises:
        ValueError: when the settings contradict each other.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    """The settings that differ from D-UNet's."""
    __signature__: ClassVar[Signature] = signature(SliceStackUNetSettings)
    """The settings as arguments, for ``help()`` and for the check of a config's overrides."""

    def __init__(self, **settings: Any) -> None:
        s = SliceStackUNetSettings(**(self.defaults | settings))
        super().__init__(s.in_channels, min_size=s.min_size)
        self.patch_attention = s.attention == "patch"
        self.side_outputs = s.side_outputs

        f = list(s.features)
        self.volume_levels: nn.Module = VolumeBranch(f[:3])
        self.fuse_half = make_fusion(f[1], s.in_channels // 2, s)
        self.fuse_quarter = make_fusion(f[2], s.in_channels // 4, s)
        skips = [f[0], self.fuse_half.out_channels, self.fuse_quarter.out_channels, f[3], f[4]]
        self.encoder = nn.ModuleList(
            EncoderLevel(i, o, grids, s) for i, o, grids in zip([s.in_channels, *skips[:4]], f, s.grids, strict=True)
        )
        self.decoder = nn.ModuleList(DecoderLevel(f[i + 1], skips[i], f[i], s) for i in (3, 2, 1, 0))
        self.head = nn.Conv2d(f[0], s.out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | NetworkOutput:
        """Run encoder and decoder as in the thesis's figures 3.1 and 4.1.

        Args:
            x: stacks of slices ``(B, in_channels, H, W)``, H and W multiples of 16 and at least 96.

        Returns:
            in ``train()`` a :class:`NetworkOutput`, in ``eval()`` (and under TorchScript) the logits
            ``(B, out_channels, H, W)``.

        Raises:
            ValueError: when the input has another shape.
        """
        x = self.checked(x)
        half, quarter = self.volume_levels(x)

        e1, scores1 = self.encoder[0](x)
        e2, scores2 = self.encoder[1](F.max_pool2d(e1, 2))
        e2 = self.fuse_half(half, e2)
        e3, scores3 = self.encoder[2](F.max_pool2d(e2, 2))
        e3 = self.fuse_quarter(quarter, e3)
        e4, scores4 = self.encoder[3](F.max_pool2d(e3, 2))
        e5, scores5 = self.encoder[4](F.max_pool2d(e4, 2))

        attention = scores5[-1] if len(scores5) > 0 else e5
        d4, side4 = self.decoder[0](e5, e4, attention)
        d3, side3 = self.decoder[1](d4, e3, attention)
        d2, side2 = self.decoder[2](d3, e2, attention)
        d1, side1 = self.decoder[3](d2, e1, attention)

        logits: torch.Tensor = self.head(d1)
        # torch does not list is_scripting; after the ignore TorchScript allows no comment.
        if torch.jit.is_scripting() or not self.training:  # type: ignore[attr-defined]
            return logits
        side_logits = [side4, side3, side2, side1] if self.side_outputs else []
        patch_scores = scores1 + scores2 + scores3 + scores4 + scores5 if self.patch_attention else []
        return NetworkOutput(logits, side_logits, patch_scores)
