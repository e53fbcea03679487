"""Network time of other segmentation networks on one volume, untrained: ``make bench-others``.

It needs nnU-Net, which has an environment of its own. Nothing of the bundle is imported.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.networks.nets import AttentionUnet, DynUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from scripts.command import run_command

__all__ = ["others"]

_VOLUME = (189, 233, 197)  # the ATLAS grid at 1 mm, axial slices first


def _nnunet_network(patch: tuple[int, ...], features: list[int]) -> nn.Module:
    """Return a network as nnU-Net v2 plans it: two convolutions a stage, instance norms, leaky ReLU."""
    dimensions, stages = len(patch), len(features)
    conv = nn.Conv3d if dimensions == 3 else nn.Conv2d
    norm = nn.InstanceNorm3d if dimensions == 3 else nn.InstanceNorm2d
    return PlainConvUNet(
        1,
        stages,
        features,
        conv,
        [[3] * dimensions] * stages,
        [[1] * dimensions] + [[2] * dimensions] * (stages - 1),
        [2] * stages,
        2,
        [2] * (stages - 1),
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


def _nnunet(patch: tuple[int, ...], features: list[int]) -> Callable[[torch.Tensor], object]:
    """Return nnU-Net's own sliding window, without mirroring."""
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=True
    )
    predictor.network = _nnunet_network(patch, features).eval()
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
    return lambda volume: predictor.predict_sliding_window_return_logits(volume[0])


def _dynunet() -> Callable[[torch.Tensor], object]:
    strides = [1, 2, 2, 2, 2, 2]
    network = DynUNet(3, 1, 2, [3] * 6, strides, strides[1:], filters=[32, 64, 128, 256, 320, 320]).eval()
    return partial(SlidingWindowInferer((128, 128, 128), 1, 0.5, mode="gaussian"), network=network)


def _slices() -> Callable[[torch.Tensor], object]:
    network = AttentionUnet(2, 1, 1, [32, 64, 128, 256, 512], [2, 2, 2, 2]).eval()
    return partial(SliceInferer(spatial_dim=0, roi_size=(240, 208), sw_batch_size=8), network=network)


WAYS = {
    "nnU-Net v2, 3d_fullres, 128 x 128 x 128, no mirroring": lambda: _nnunet(
        (128, 128, 128), [32, 64, 128, 256, 320, 320]
    ),
    "nnU-Net v2, 2d, 256 x 224, no mirroring": lambda: _nnunet((256, 224), [32, 64, 128, 256, 512, 512]),
    "MONAI DynUNet, 128 x 128 x 128, overlap 0.5": _dynunet,
    "MONAI SliceInferer, AttentionUnet 2D": _slices,
}


@torch.inference_mode()
def others(output: str = "runs/bench/others.json") -> None:
    """Measure each once, as it takes minutes.

    Args:
        output: the JSON to write.
    """
    torch.manual_seed(0)
    volume, seconds = torch.rand(1, 1, *_VOLUME), {}
    for name, make in WAYS.items():
        compute = make()
        begin = time.perf_counter()
        compute(volume)
        seconds[name] = time.perf_counter() - begin
        print(f"{name:<58} {seconds[name]:7.1f} s", flush=True)
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"torch": torch.__version__, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(others)
