"""Speed and memory of a training step on a GPU: ``python -m benchmarks.gpu_training``."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bundle.acceleration.cuda_graphs import capture
from bundle.inferers import AutocastInferer
from bundle.losses import AGMRLoss, TSRLLoss
from bundle.networks import AGMRNet, SliceStackUNet, TSRLNet
from scripts.command import run_command

__all__ = ["gpu_training"]

_WARM, _TIMED = 5, 12


@dataclass(frozen=True)
class Way:
    """What is trained and how."""

    network: type[SliceStackUNet]
    slice_size: int
    batch_size: int
    amp: bool
    graphs: bool = False

    def __str__(self) -> str:
        shape = f"{self.batch_size} slices of {self.slice_size} x {self.slice_size}"
        return f"{self.network.__name__}, {shape}, {'bfloat16' if self.amp else 'float32'}" + ", graphs" * self.graphs


WAYS = (
    Way(TSRLNet, 192, 16, amp=False),
    Way(TSRLNet, 192, 16, amp=True),
    Way(AGMRNet, 192, 16, amp=False),
    Way(TSRLNet, 96, 32, amp=True),
    Way(TSRLNet, 96, 128, amp=True),
    Way(TSRLNet, 96, 256, amp=True, graphs=True),
)


def _measure(way: Way) -> tuple[float, float]:
    """Return the seconds of a step, a mean of twelve, and the peak of the GPU's memory in GiB."""
    network = way.network().cuda().train()
    inferer, loss = AutocastInferer(way.amp), (AGMRLoss() if way.network is AGMRNet else TSRLLoss()).cuda()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    stacks = torch.rand(way.batch_size, network.in_channels, way.slice_size, way.slice_size, device="cuda")
    label = (torch.rand_like(stacks[:, :1]) > 0.9).float()
    torch.cuda.reset_peak_memory_stats()
    if way.graphs:
        capture(network, way.batch_size, way.slice_size, way.amp)
    for step in range(_WARM + _TIMED):
        if step == _WARM:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss(inferer(stacks, network), label).backward()
        optimizer.step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / _TIMED, torch.cuda.max_memory_allocated() / 2**30


def gpu_training() -> None:
    """Print a row for each way: milliseconds a step, slices a second, GiB."""
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device.")
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for way in WAYS:
        seconds, gib = _measure(way)
        print(f"{way}: {1000 * seconds:.0f} ms a step, {way.batch_size / seconds:.0f} slices/s, {gib:.1f} GiB")


if __name__ == "__main__":
    run_command(gpu_training)
