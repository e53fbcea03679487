"""Speed of a training step on a CPU, the plain way and the fast one: ``python -m benchmarks.training``."""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bundle.acceleration.memory import keep_freed_memory
from bundle.inferers import AutocastInferer
from bundle.losses import TSRLLoss
from bundle.networks import TSRLNet
from bundle.networks.blocks import ChannelProjection, VolumeConvolution
from scripts.command import run_command

__all__ = ["training"]

# Steps before the clock starts, and under it, in every process.
_WARM, _TIMED = 1, 2
# How far the mean loss of the curves' last steps may be from the plain way's. Of a single seed it has been 3.03 %.
_TOLERANCE, _LAST, _SEEDS = 0.03, 10, 5


@dataclass(frozen=True)
class Way:
    """How a step is computed; each of the fast choices can be left out."""

    name: str
    slices_as_channels: bool = True
    channels_last: bool = True
    keep_memory: bool = True
    fused_adam: bool = True
    amp: bool = True


WAYS = (
    Way("float32, 3D convolutions, channels first, memory given back", False, False, False, False, False),
    Way("+ slices as channels", True, False, False, False, False),
    Way("+ channels last", True, True, False, False, False),
    Way("+ freed memory kept", True, True, True, False, False),
    Way("+ fused Adam", True, True, True, True, False),
    Way("+ bfloat16"),
)


@dataclass(frozen=True)
class Measured:
    """What a process measured: seconds and loss of each step, and its peak of memory in GB."""

    seconds: list[float]
    losses: list[float]
    peak_gb: float


def _batch(slice_size: int, batch_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise ``(B, 4, H, W)`` with a dark square in every other stack, and its label ``(B, 1, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(batch_size, 1, slice_size, slice_size)
    for stack in range(0, batch_size, 2):
        row, column = torch.randint(0, slice_size // 2, (2,), generator=generator).tolist()
        label[stack, :, row : row + slice_size // 4, column : column + slice_size // 4] = 1
    image = 1 + 0.3 * torch.randn(batch_size, 4, slice_size, slice_size, generator=generator) - 0.6 * label
    return image, label


def _as_it_is(tensor: torch.Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    """Do what ``Tensor.contiguous`` does, but never convert to channels last."""
    return tensor if memory_format == torch.channels_last else tensor.clone(memory_format=memory_format)


def _train(way: Way, slice_size: int, batch_size: int, steps: int, seed: int = 0) -> Measured:
    """Train a new TSRL-Net; in a process of its own, because the allocator's settings cannot be taken back."""
    if way.keep_memory:
        keep_freed_memory()
    # What is replaced stays so: the process ends with the way.
    if not way.slices_as_channels:
        for convolution in (VolumeConvolution, ChannelProjection):
            convolution.forward = nn.Conv3d.forward  # type: ignore[method-assign]
    if not way.channels_last:
        torch.Tensor.contiguous = _as_it_is  # type: ignore[assignment, method-assign]
    torch.manual_seed(seed)
    network, loss_function, infer = TSRLNet().train(), TSRLLoss(), AutocastInferer(amp=way.amp)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=way.fused_adam)
    seconds, losses = [], []
    for step in range(steps):
        image, label = _batch(slice_size, batch_size, seed=seed * steps + step)
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_function(infer(image, network), label)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
        losses.append(loss.item())
    return Measured(seconds, losses, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def _speed(processes: ProcessPoolExecutor, slice_size: int, batch_size: int, repeats: int, output: Path) -> None:
    """Measure the ways in turn, several times, so that other load on the machine affects all of them."""
    seconds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    peaks = {}
    for _ in range(repeats):
        for way in WAYS:
            measured = processes.submit(_train, way, slice_size, batch_size, _WARM + _TIMED).result()
            seconds[way.name] += measured.seconds[_WARM:]
            peaks[way.name] = measured.peak_gb
    plain = statistics.median(seconds[WAYS[0].name])
    found = {}
    print(f"{slice_size} x {slice_size}, batch {batch_size}, {torch.get_num_threads()} threads")
    for name, steps in seconds.items():
        median = statistics.median(steps)
        speed = f"{batch_size / median:.2f} slices/s, peak {peaks[name]:.1f} GB"
        print(f"{name:<62} {plain / median:5.2f} x  ({speed})")
        found[name] = {"ratio": plain / median, "slices_s": batch_size / median, "peak_gb": peaks[name]}
    output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"slice_size": slice_size, "batch_size": batch_size}
    output.write_text(json.dumps({**settings, "ways": found}, indent=1) + "\n")


def _curves(processes: ProcessPoolExecutor, steps: int) -> None:
    """Check that the fast way learns as the plain one does, from the same seeds on the same batches of 4 at 96 x 96.

    Raises:
        SystemExit: when it does not.
    """
    ends: dict[str, list[float]] = {"plain": [], "fast": []}
    for seed in range(_SEEDS):
        for name, way in zip(ends, (WAYS[0], WAYS[-1]), strict=True):
            losses = processes.submit(_train, way, 96, 4, steps, seed).result().losses
            ends[name].append(statistics.fmean(losses[-_LAST:]))
            print(f"loss of {steps} steps, seed {seed}, {name}: {losses[0]:.4f} to {ends[name][-1]:.4f}")
    difference = statistics.fmean(ends["fast"]) / statistics.fmean(ends["plain"]) - 1
    print(f"mean of the last {_LAST} over {_SEEDS} seeds: {difference:+.2%}, at most {_TOLERANCE:.0%} expected")
    if abs(difference) > _TOLERANCE:
        raise SystemExit(1)


def training(
    slice_size: int = 192,
    batch_size: int = 8,
    repeats: int = 3,
    curve_steps: int = 30,
    output: str = "runs/bench/training.json",
) -> None:
    """Print the speed of a training step of TSRL-Net as each choice is added, relative to the first, and loss curves.

    Args:
        slice_size: H and W of the slices.
        batch_size: stacks in a batch.
        repeats: how many times each way gets a process.
        curve_steps: steps of the loss curves, 0 for none.
        output: the JSON of the speed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as processes:
        _speed(processes, slice_size, batch_size, repeats, Path(output))
        if curve_steps:
            _curves(processes, curve_steps)


if __name__ == "__main__":
    run_command(training)
