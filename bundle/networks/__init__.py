"""Networks: one slice stack U-Net assembled from parts, and its three named settings."""

from bundle.networks.nets import AGMRNet, DUNet, TSRLNet
from bundle.networks.settings import SliceStackUNetSettings
from bundle.networks.slice_stack_network import NetworkOutput, SliceStackNetwork
from bundle.networks.slice_stack_unet import SliceStackUNet

__all__ = [
    "AGMRNet",
    "DUNet",
    "NetworkOutput",
    "SliceStackNetwork",
    "SliceStackUNet",
    "SliceStackUNetSettings",
    "TSRLNet",
]
