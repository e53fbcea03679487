"""The three networks of the thesis, each with its own settings of :class:`SliceStackUNet`."""

from __future__ import annotations

from typing import Any, ClassVar

from bundle.networks.slice_stack_unet import SliceStackUNet

__all__ = ["AGMRNet", "DUNet", "TSRLNet"]


class DUNet(SliceStackUNet):
    """D-UNet, the backbone (thesis 2.2; Zhou et al., IEEE/ACM TCBB 2021): 9,503,779 parameters."""


class AGMRNet(SliceStackUNet):
    """Attention-guided multi-scale recovery network, AGMR-Net (thesis chapter 3): 23,799,292 parameters.

    Coarse patch attention at every encoder level, cross-dimension fusion, multi-scale deconvolution upsampling.
    """

    defaults: ClassVar[dict[str, Any]] = {"attention": "patch", "fusion": "cff", "upsampling_kernels": (3, 5, 7, 9)}


class TSRLNet(SliceStackUNet):
    """Target-aware supervised residual learning network, TSRL-Net (thesis chapter 4): 12,854,496 parameters.

    AGMR-Net's encoder, single-size deconvolution, side outputs and coarse residual learning on the skips.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "attention": "patch",
        "fusion": "cff",
        "upsampling_kernels": (3,),
        "side_outputs": True,
        "residual": "coarse",
    }
