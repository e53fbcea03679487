"""Training steps that a GPU does not wait for."""

from __future__ import annotations

import torch

from bundle.errors import InputError
from bundle.networks.slice_stack_unet import SliceStackUNet

__all__ = ["capture"]


def capture(network: SliceStackUNet, batch_size: int, slice_size: int, amp: bool = True) -> SliceStackUNet:
    """Records the network's forward and backward pass in ``train()`` as CUDA graphs, which take its place.

    The networks are many small kernels: on an H100 a step of 128 slices of 96 x 96 takes as long as one of 32, because
    it waits for Python. A graph is started as a whole. It has one shape, so every batch must be of this size; in
    ``eval()`` the network is as it was.

    Args:
        network: on a CUDA device.
        batch_size: slices in every batch.
        slice_size: H and W of the slices.
        amp: under bfloat16 autocast.

    Returns:
        the same network, in ``train()``; its parameters stay where they are.

    Raises:
        InputError: when the network is not on a CUDA device.
    """
    network.train()
    device = next(network.parameters()).device
    if device.type != "cuda":
        raise InputError(f"CUDA graphs need a CUDA device, and the network is on {device.type}.")
    stacks = torch.zeros(batch_size, network.in_channels, slice_size, slice_size, device=device)
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    # The cache of autocast would hold copies of parameters that a later step has changed.
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=amp, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (stacks,), allow_unused_input=True)
    for name, buffer in network.named_buffers():  # of the zeros that it was recorded with
        buffer.copy_(statistics[name])
    return network
