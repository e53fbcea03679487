"""The networks that the thesis compares its own to (tables 3.2, 4.2 and 4.3); ``docs/comparison_networks.md``."""

from bundle.networks.comparison.acs_net import ACSNet
from bundle.networks.comparison.attention_u_net import AttentionUNet
from bundle.networks.comparison.clci_net import CLCINet
from bundle.networks.comparison.deeplab_v3 import DeepLabV3
from bundle.networks.comparison.psp_net import PSPNet
from bundle.networks.comparison.seg_net import SegNet
from bundle.networks.comparison.u_net import UNet
from bundle.networks.comparison.u_net_3d import UNet3D
from bundle.networks.comparison.unet_plus_plus import UNetPlusPlus
from bundle.networks.comparison.x_net import XNet

__all__ = [
    "ACSNet",
    "AttentionUNet",
    "CLCINet",
    "DeepLabV3",
    "PSPNet",
    "SegNet",
    "UNet",
    "UNet3D",
    "UNetPlusPlus",
    "XNet",
]
