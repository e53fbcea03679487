"""A network captured as CUDA graphs trains like the same network without them; a CPU is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from bundle.acceleration.cuda_graphs import capture
from bundle.errors import InputError
from bundle.losses import TSRLLoss
from bundle.networks import SliceStackUNet, TSRLNet


def losses_of(network: SliceStackUNet, stacks: torch.Tensor, label: torch.Tensor) -> list[float]:
    """Of four steps."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses: list[float] = []
    for _ in range(4):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = network(stacks)
        loss = TSRLLoss()(output, label)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_network_trains_like_the_plain_one() -> None:
    torch.manual_seed(0)
    network = TSRLNet().cuda().train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    captured = capture(copy.deepcopy(network), batch_size=8, slice_size=96)
    for name, value in network.state_dict().items():
        assert torch.equal(captured.state_dict()[name], value)  # recording leaves no trace
    stacks = torch.rand(8, 4, 96, 96, device="cuda")
    label = (torch.rand(8, 1, 96, 96, device="cuda") > 0.9).float()
    expected = losses_of(network, stacks, label)
    assert losses_of(captured, stacks, label) == pytest.approx(expected, rel=5e-3)
    assert captured.eval()(stacks[:3]).shape == (3, 1, 96, 96)


def test_a_network_on_a_cpu_is_not_captured() -> None:
    with pytest.raises(InputError, match=r"^CUDA graphs need a CUDA device, and the network is on cpu\.$"):
        capture(TSRLNet(), batch_size=8, slice_size=96)
