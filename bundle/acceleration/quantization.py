"""Quantization of a network to eight-bit integers for OpenVINO, calibrated on simulated strokes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor

from bundle.errors import InputError
from bundle.mni import TEMPLATE, atlas_grid
from bundle.transforms.preprocessing import VolumePreprocessing
from bundle.transforms.slices import OFFSETS, Plane, StackSlices, to_plane

__all__ = ["SimulatedQuantization"]

# Layers that take the image or return the logits, and layers too small to gain from integers.
_LEFT_IN_FLOAT = [
    r".*\.encoder\.0\.conv\.conv_0\..*",
    r".*\.volume_levels\.levels\.0\.0\..*",
    r".*\.head/.*",
    r".*\.relate\..*",
    r".*\.weigh_.*",
]
_SMOOTHING = 0.6  # the value between 0.3 and 0.85 with the logits closest to float32's


@dataclass(repr=False, eq=False)
class SimulatedQuantization:
    """Quantization to eight-bit integers except for the first and last layers, with ranges from simulated strokes.

    Args:
        preprocessing: of the network's volumes, for the key ``image``.
        offsets: the stack's slices relative to its own.
        volumes: number of simulated volumes, in the MNI template; the same at each call.
        slices: number of evenly spaced stacks of each volume.
        plane: of the slices.

    Raises:
        InputError: if NNCF is not installed, or the processor has no fast integer instructions.
    """

    preprocessing: VolumePreprocessing
    offsets: Sequence[int] = OFFSETS
    volumes: int = 12
    slices: int = 10
    plane: Plane = "axial"

    def __post_init__(self) -> None:
        if find_spec("nncf") is None:
            raise InputError("NNCF is not installed: pip install -r requirements/openvino.txt, or backend openvino.")
        if not any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni")):
            raise InputError(
                "This processor has no instructions for eight-bit integers (VNNI), without which they are neither "
                "fast nor exact: choose openvino."
            )

    def __call__(self, model: Any) -> Any:
        """Return the quantized form of a float32 ``openvino.Model``, for inputs ``(1, S, H, W)``."""
        os.environ.setdefault("NNCF_CI", "1")  # otherwise NNCF reports each use to its vendor
        import nncf
        from nncf.quantization import advanced_parameters as advanced
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)  # it logs each operation that it ignores
        stacks = self.stacks()
        model.reshape([1, *stacks.shape[1:]])
        return nncf.quantize(
            model,
            nncf.Dataset([stack[None].numpy() for stack in stacks]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(stacks),
            model_type=nncf.ModelType.TRANSFORMER,  # enables smoothing of channels with different ranges
            ignored_scope=nncf.IgnoredScope(patterns=_LEFT_IN_FLOAT, validate=False),  # D-UNet has some only
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=advanced.OverflowFix.DISABLE,  # sums overflow only without VNNI
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,  # lesions are the outliers
                smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(convolution=_SMOOTHING, matmul=-1),
            ),
        )

    def stacks(self) -> torch.Tensor:
        """Return the stacks for the calibration, ``(N, S, H, W)``."""
        from bundle.data.simulate import SimulatedCases, load_head  # late: a cached network needs none

        affine = torch.as_tensor(atlas_grid()[0])
        prepare = self.preprocessing.after_loading
        chosen = []
        for case in SimulatedCases([load_head(str(TEMPLATE))], None, self.volumes):
            volume = MetaTensor(torch.from_numpy(case.image)[None], affine=affine)
            prepared = prepare({"image": volume})["image"][0].as_tensor()
            stacks = StackSlices(self.offsets)(to_plane(prepared, self.plane)[None])
            chosen.append(stacks[torch.linspace(0, len(stacks) - 1, self.slices).long()])
        return torch.cat(chosen)

    def __repr__(self) -> str:
        """Return a text of the settings, part of the cache key of quantized networks."""
        settings = f"{self.offsets}, {self.plane}, {self.volumes}, {self.slices}, {_LEFT_IN_FLOAT}, {_SMOOTHING}"
        return f"SimulatedQuantization({self.preprocessing!r}, {settings}, NNCF {version('nncf')})"
