"""Networks: one slice stack U-Net assembled from parts, and its three named settings."""

from bundle.networks.attention import CoarsePatchAttention, MixedPatchAttention, PixelAttention
from bundle.networks.blocks import ConvBlock, MultiScaleConvolution
from bundle.networks.fusion import (
    AddFusion,
    ConcatenateFusion,
    CrossDimensionFusion,
    SliceProjection,
    SqueezeExcitationFusion,
)
from bundle.networks.nets import AGMRNet, DUNet, TSRLNet
from bundle.networks.residual import CoarseResidual, ReverseAttention
from bundle.networks.settings import SliceStackUNetSettings
from bundle.networks.slice_stack_network import NetworkOutput, SliceStackNetwork
from bundle.networks.slice_stack_unet import SliceStackUNet

__all__ = [
    "AGMRNet",
    "AddFusion",
    "CoarsePatchAttention",
    "CoarseResidual",
    "ConcatenateFusion",
    "ConvBlock",
    "CrossDimensionFusion",
    "DUNet",
    "MixedPatchAttention",
    "MultiScaleConvolution",
    "NetworkOutput",
    "PixelAttention",
    "ReverseAttention",
    "SliceProjection",
    "SliceStackNetwork",
    "SliceStackUNet",
    "SliceStackUNetSettings",
    "SqueezeExcitationFusion",
    "TSRLNet",
]
