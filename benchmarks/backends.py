"""Network time of every way to compute it, and how it grows: ``python -m benchmarks.backends``.

Each way gets a process of its own, the ways take turns, and all of it is repeated; the results are medians.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from bundle.acceleration import backends as inference
from bundle.acceleration.folding import fold_batch_norms, inference_form
from bundle.acceleration.memory import keep_freed_memory
from bundle.acceleration.quantization import SimulatedQuantization
from bundle.inferers.slice_stack import _autocast
from bundle.mni import TEMPLATE
from bundle.networks import TSRLNet
from bundle.networks.blocks import ChannelProjection, VolumeConvolution
from bundle.transforms import VolumePreprocessing
from bundle.transforms.slices import OFFSETS, pad_slices, stack_padded
from scripts.command import run_command

__all__ = ["Measured", "backends"]

SLICES = 189  # of a volume at 1 mm
_BATCHES, _BATCH_SIZE = 3, 8
_AT_LEAST_S = 2.0

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """What a process measured.

    Args:
        seconds: of a slice.
        ready_seconds: until it could compute.
        peak_mb: most memory of the process.
        gmac: multiplications of a slice, 10^9.
        difference: largest of a logit to the first way's, in standard deviations of the logits.
    """

    seconds: float
    ready_seconds: float
    peak_mb: float
    gmac: float
    difference: float


def _network(seed: int = 0) -> TSRLNet:
    torch.manual_seed(seed)
    return TSRLNet().eval()


def _plain(network: TSRLNet) -> TSRLNet:
    """Return the network with torch's own 3D convolutions."""
    for module in network.modules():
        if isinstance(module, VolumeConvolution | ChannelProjection):
            module.__class__ = nn.Conv3d  # type: ignore[assignment]
    return network


def _as_trained(network: TSRLNet) -> TSRLNet:
    return network


def _remembering(network: TSRLNet) -> Network:
    keep_freed_memory()
    return inference_form(network)


def _compiled(network: TSRLNet) -> Network:
    """Return the network compiled by ``torch.compile`` with its weights as constants."""
    torch._inductor.config.freezing = True
    return torch.compile(inference_form(network))


def _openvino(network: TSRLNet, amp: bool, integers: bool = False) -> Network:
    if not integers:
        return inference.OpenVINOBackend(amp)(network)
    return inference.OpenVINOBackend(amp, SimulatedQuantization(VolumePreprocessing("image", space="mni")))(network)


def _openvino_as_trained(network: TSRLNet, amp: bool) -> Network:
    backend = inference.OpenVINOBackend(amp)
    return inference._OpenVINONetwork(
        backend.core, inference.convert_to_openvino(fold_batch_norms(network)), backend.precision
    )


# How the network is converted, and whether it runs under bfloat16 autocast.
WAYS: dict[str, tuple[Callable[[TSRLNet], Network], bool]] = {
    "torch, float32, 3D convolutions": (_plain, False),
    "torch, float32, 3D branch as 2D convolutions, as in training": (_as_trained, False),
    "torch, float32, + batch norms folded": (fold_batch_norms, False),
    "torch, float32, + no products with zeros": (inference_form, False),
    "torch, float32, + freed memory kept (backend torch)": (_remembering, False),
    "torch, bfloat16, batch norms folded": (fold_batch_norms, True),
    "torch, bfloat16, + no products with zeros": (inference_form, True),
    "torch, bfloat16, + freed memory kept (backend torch, --amp)": (_remembering, True),
    "torch.compile, bfloat16": (_compiled, True),
    "OpenVINO, float32 (backend openvino)": (partial(_openvino, amp=False), False),
    "OpenVINO, bfloat16, 3D branch as in training": (partial(_openvino_as_trained, amp=True), False),
    "OpenVINO, bfloat16 (backend openvino, --amp)": (partial(_openvino, amp=True), False),
    "OpenVINO, int8 and bfloat16 (backend openvino_int8)": (partial(_openvino, amp=True, integers=True), False),
}


def _stacks(size: int = 192, count: int = _BATCHES * _BATCH_SIZE) -> torch.Tensor:
    """Return stacks of the MNI head, ``(N, 4, size, size)``, from its middle."""
    prepare = VolumePreprocessing("image", spacing_mm=192 / size, slice_size=size)
    padded = pad_slices(prepare({"image": str(TEMPLATE)})["image"][0].as_tensor(), OFFSETS)
    stacks = stack_padded(padded, OFFSETS)
    middle = len(stacks) // 2
    return stacks[torch.arange(middle - count // 2, middle - count // 2 + count) % len(stacks)].contiguous()


@torch.inference_mode()
def _measure(name: str, size: int = 192, threads: int = 0, slices: int = _BATCHES * _BATCH_SIZE) -> Measured:
    """Measure a way, in a process of its own."""
    if threads:
        torch.set_num_threads(threads)
    make, amp = WAYS[name]
    stacks = _stacks(size, slices)
    batches = stacks.split(_BATCH_SIZE if name.startswith("torch") else len(stacks))
    begin = time.perf_counter()
    compute = make(_network())
    with _autocast(stacks.device, amp):
        first = compute(batches[0]).float()
        ready = time.perf_counter() - begin
        passes: list[float] = []
        while sum(passes[1:]) < _AT_LEAST_S:  # the first warms
            begin = time.perf_counter()
            for batch in batches:
                compute(batch)
            passes.append(time.perf_counter() - begin)
        seconds = statistics.median(passes[1:]) / len(stacks)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    expected = _plain(_network())(batches[0])
    difference = float((first - expected).abs().max() / expected.std())
    return Measured(seconds, ready, peak_mb, _gmac(compute, batches[0][:1]), difference)


def _gmac(compute: Network, stack: torch.Tensor) -> float:
    """Return the multiplications of a slice, 10^9; OpenVINO's are those of the network that it converted."""
    module = compute if isinstance(compute, nn.Module) else inference_form(_network())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        getattr(module, "_orig_mod", module)(stack)
    return counter.get_total_flops() / 2e9


def _peak_rates() -> dict[str, float]:
    """Return the most GMAC/s that a large convolution of several shapes reaches on all threads: ``f32``, ``bf16``."""
    import numpy as np
    import openvino
    from openvino import opset13

    core, rates = openvino.Core(), {"f32": 0.0, "bf16": 0.0}
    for channels, size in ((64, 192), (128, 96), (128, 192), (256, 96), (512, 48)):
        image = opset13.parameter([1, channels, size, size], np.float32)
        weight = opset13.constant(np.full((channels, channels, 3, 3), 0.01, np.float32))
        layer = image
        for _ in range(8):
            layer = opset13.relu(opset13.convolution(layer, weight, [1, 1], [1, 1], [1, 1], [1, 1]))
        model, gmac = openvino.Model([layer], [image]), 8 * 9e-9 * channels**2 * size**2
        for precision in rates:
            settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
            queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings))
            inputs = [np.zeros((1, channels, size, size), np.float32)]
            for _ in range(4):
                begin = time.perf_counter()
                for _ in range(8):
                    queue.start_async(inputs)
                queue.wait_all()
                rates[precision] = max(rates[precision], 8 * gmac / (time.perf_counter() - begin))
    return rates


def _medians(found: list[Measured]) -> dict[str, Any]:
    values = {key: statistics.median(getattr(one, key) for one in found) for key in asdict(found[0])}
    times = [one.seconds for one in found]
    return {**values, "least": min(times), "most": max(times)}


def backends(output: str = "runs/bench/backends.json", repeats: int = 3) -> None:
    """Measure the ways, their growth with slices, their size and threads, and the processor's peak.

    Args:
        output: the JSON to write.
        repeats: turns of all ways.
    """
    if find_spec("openvino") is None:
        raise SystemExit("OpenVINO is not installed: pip install -r requirements/openvino.txt.")
    best = "OpenVINO, bfloat16 (backend openvino, --amp)"
    few = _BATCHES * _BATCH_SIZE
    growth = [(size, 0, few) for size in (96, 128, 160, 224)] + [(192, threads, few) for threads in (1, 2)]
    growth += [(192, 0, slices) for slices in (48, 96, SLICES)]
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as cache,  # so that the first conversion is seen
        mock.patch.dict(os.environ, XDG_CACHE_HOME=cache),
        ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as process,
    ):
        peak = process.submit(_peak_rates).result()
        # Converted and compiled once, apart: a process that has done so computes more slowly than one that reads.
        first = {name: process.submit(_measure, name).result() for name in tqdm(WAYS, desc="the first time")}
        ways: dict[str, list[Measured]] = {name: [] for name in WAYS}
        grown: dict[tuple[int, int, int], list[Measured]] = {point: [] for point in growth}
        for _ in tqdm(range(repeats), desc="turns"):
            for name, measured in ways.items():
                measured.append(process.submit(_measure, name).result())
            for point, measured in grown.items():
                measured.append(process.submit(_measure, best, *point).result())
    reference = ways[next(iter(WAYS))]
    results = {
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "slices": SLICES,
        "peak_gmac_s": peak,
        "ways": {
            name: {
                **_medians(found),
                "first_ready_seconds": first[name].ready_seconds,
                "ratio": statistics.median(a.seconds / b.seconds for a, b in zip(found, reference, strict=True)),
            }
            for name, found in ways.items()
        },
        "growth": [
            {"size": size, "threads": threads, "slices": slices, **_medians(found)}
            for (size, threads, slices), found in grown.items()
        ],
    }
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    for name, way in results["ways"].items():  # type: ignore[attr-defined]
        print(f"{name:<66} {way['ratio']:5.2f} x  ({way['seconds'] * SLICES:.1f} s for {SLICES} slices)")


if __name__ == "__main__":
    run_command(backends)
