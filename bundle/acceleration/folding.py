"""A network's form for inference: the same logits with less computation."""

from __future__ import annotations

import copy
from typing import TypeVar

from monai.networks.blocks import Convolution
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval

from bundle.acceleration.inference_branch import InferenceBranch, inference_projection
from bundle.networks.slice_stack_unet import SliceStackUNet

__all__ = ["fold_batch_norms", "inference_form"]

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(network: Network) -> Network:
    """Return a copy whose batch norms are folded into the convolutions before them, with in-place ReLUs.

    Its output is the same up to float32's rounding. Only batch norms inside a MONAI
    :class:`~monai.networks.blocks.Convolution` are folded: nothing else reads their input.

    Args:
        network: in ``eval()``; it is not changed.

    Raises:
        ValueError: if it is in ``train()``, where a batch norm depends on the batch.
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


def inference_form(network: SliceStackUNet) -> SliceStackUNet:
    """Return a copy for ``eval()`` with the same output, up to float32's rounding, in less time.

    Batch norms are folded; the 3D branch becomes 2D convolutions without the products with zeros.

    Args:
        network: in ``eval()``; it is not changed.

    Raises:
        ValueError: if it is in ``train()``.
    """
    lean = fold_batch_norms(network)
    lean.volume_levels = InferenceBranch(lean.volume_levels.children(), network.in_channels)  # type: ignore[arg-type]
    for fusion in (lean.fuse_half, lean.fuse_quarter):
        fusion.project = inference_projection(fusion.project)  # type: ignore[assignment]
    return lean
