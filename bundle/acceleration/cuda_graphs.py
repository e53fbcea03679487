"""CUDA graphs of training steps."""

from __future__ import annotations

import torch

from bundle.errors import InputError
from bundle.networks.slice_stack_unet import SliceStackUNet

__all__ = ["capture"]


def capture(network: SliceStackUNet, batch_size: int, slice_size: int, amp: bool = True) -> SliceStackUNet:
    """Replace the network's forward and backward pass in ``train()`` by CUDA graphs.

    The networks consist of many small kernels: on an H100 a step of 128 slices of 96 x 96 takes as long as one of 32,
    because the GPU waits for Python. A graph is launched as a whole. It has a fixed shape, so every batch must have
    this size. In ``eval()`` the network does not change.

    Args:
        network: on a CUDA device.
        batch_size: number of slices in every batch.
        slice_size: H and W of the slices.
        amp: record under bfloat16 autocast.

    Returns:
        the same network, in ``train()``, with the same parameters.

    Raises:
        InputError: if the network is not on a CUDA device.
    """
    network.train()
    device = next(network.parameters()).device
    if device.type != "cuda":
        raise InputError(f"CUDA graphs need a CUDA device, and the network is on {device.type}.")
    stacks = torch.zeros(batch_size, network.in_channels, slice_size, slice_size, device=device)
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    # Autocast's cache would keep copies of parameters that later steps change.
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=amp, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (stacks,), allow_unused_input=True)
    for name, buffer in network.named_buffers():  # recording has updated them with zeros
        buffer.copy_(statistics[name])
    return network
