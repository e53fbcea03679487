"""Speed of one volume under the inferer's options, as ratios in one run: ``python -m benchmarks.speed``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import fire
import torch

from bundle.inferers import SliceStackInferer
from bundle.networks import AGMRNet, DUNet, TSRLNet
from bundle.transforms import TEMPLATE, VolumePreprocessing

__all__ = ["speed"]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@torch.no_grad()
def speed(spacing_mm: float = 2.0, slice_size: int = 96) -> None:
    """Prints the time of each network and option, relative to TSRL-Net's in float32.

    Args:
        spacing_mm: voxel size that the network sees.
        slice_size: H and W of the slices.
    """
    prepare = VolumePreprocessing("image", spacing_mm=spacing_mm, slice_size=slice_size)
    volume = prepare({"image": str(TEMPLATE)})["image"][None]
    rows = {
        "TSRL-Net, float32": (TSRLNet(), SliceStackInferer()),
        "TSRL-Net, four slices at a time": (TSRLNet(), SliceStackInferer(4)),
        "TSRL-Net, bfloat16": (TSRLNet(), SliceStackInferer(amp=True)),
        "TSRL-Net, one flip": (TSRLNet(), SliceStackInferer(flips=[[0]])),
        "AGMR-Net, float32": (AGMRNet(), SliceStackInferer()),
        "D-UNet, float32": (DUNet(), SliceStackInferer()),
    }
    if find_spec("openvino") is not None:
        rows["TSRL-Net, OpenVINO"] = TSRLNet(), SliceStackInferer(engine="openvino")
    reference = 0.0
    for name, (network, inferer) in rows.items():
        network.eval()
        inferer(volume[..., :20], network)  # warm
        seconds = _seconds(partial(inferer, volume, network))
        reference = reference or seconds
        print(f"{name:<32} {seconds / reference:5.2f} x  ({seconds:.1f} s for {volume.shape[-1]} slices)")


if __name__ == "__main__":
    fire.Fire(speed)
