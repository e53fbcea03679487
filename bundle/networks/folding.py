"""The same network with less to compute, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from monai.networks.blocks import Convolution
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval

__all__ = ["fold_batch_norms"]

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(network: Network) -> Network:
    """A copy in which the batch norms are part of the convolutions before them, and their ReLU works in place.

    It gives what the network gives, but for float32's rounding. What stands inside of MONAI's
    :class:`~monai.networks.blocks.Convolution` is folded, where nobody else sees what is between its parts.

    Args:
        network: in ``eval()``; it stays as it is.

    Raises:
        ValueError: when it is in ``train()``, where a batch norm depends on the batch.
    """
    if network.training:
        raise ValueError("Batch norms can be folded into convolutions in eval() only: the network is in train().")
    folded = copy.deepcopy(network)
    for block in folded.modules():
        if not isinstance(block, Convolution) or not hasattr(block, "adn"):
            continue
        name, first = next(block.adn.named_children())
        if isinstance(first, _BatchNorm):
            block.conv = fuse_conv_bn_eval(block.conv, first, transpose=block.is_transposed)
            setattr(block.adn, name, nn.Identity())
        for part in block.adn:
            if isinstance(part, nn.ReLU):
                part.inplace = True
    return folded
