"""A network in eight-bit integers, for OpenVINO: calibrated on simulated strokes, all but its two ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor

from bundle.errors import InputError
from bundle.transforms.atlas import TEMPLATE, atlas_grid
from bundle.transforms.preprocessing import VolumePreprocessing
from bundle.transforms.slices import OFFSETS, Plane, StackSlices, pad_slices, stack_padded, to_plane

__all__ = ["SimulatedQuantization"]

# What sees the image itself, what gives the logits, and what is too small to be worth it.
_LEFT_IN_FLOAT = [
    r".*\.encoder\.0\.conv\.conv_0\..*",
    r".*\.volume_levels\.levels\.0\.0\..*",
    r".*\.head/.*",
    r".*\.relate\..*",
    r".*\.weigh_.*",
]
_SMOOTHING = 0.6  # of 0.3 to 0.85 the logits are nearest to float32's


class SimulatedQuantization:
    """All but its two ends in eight-bit integers, for the range of values that simulated strokes lead to.

    Args:
        preprocessing: of the volumes that the network is for, by the key ``image``.
        offsets: the stack's slices relative to its own.
        volumes: how many are simulated, in the MNI template; the same each time.
        slices: how many stacks of each are taken, evenly.
        plane: of the slices.

    Raises:
        InputError: when NNCF is not installed, or the processor is slow with integers.
    """

    def __init__(
        self,
        preprocessing: VolumePreprocessing,
        offsets: Sequence[int] = OFFSETS,
        volumes: int = 12,
        slices: int = 10,
        plane: Plane = "axial",
    ) -> None:
        if find_spec("nncf") is None:
            raise InputError("NNCF is not installed: pip install -r requirements/openvino.txt, or backend openvino.")
        if not any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni")):
            raise InputError(
                "This processor has no instructions for eight-bit integers (VNNI), without which they are neither "
                "fast nor exact: choose openvino."
            )
        self.preprocessing = preprocessing
        self.offsets = StackSlices(offsets).offsets  # checked
        self.volumes, self.slices = volumes, slices
        self.plane = plane

    def __call__(self, model: Any) -> Any:
        """A float32 ``openvino.Model`` to another one, for inputs ``(1, S, H, W)``."""
        os.environ.setdefault("NNCF_CI", "1")  # without it each use is reported to its maker
        import nncf
        from nncf.quantization import advanced_parameters as advanced
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)  # it names each operation that it leaves as it is
        stacks = self.stacks()
        model.reshape([1, *stacks.shape[1:]])
        return nncf.quantize(
            model,
            nncf.Dataset([stack[None].numpy() for stack in stacks]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(stacks),
            model_type=nncf.ModelType.TRANSFORMER,  # what lets channels of unlike ranges be smoothed
            ignored_scope=nncf.IgnoredScope(patterns=_LEFT_IN_FLOAT, validate=False),  # D-UNet has not all
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=advanced.OverflowFix.DISABLE,  # sums overflow without VNNI only
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,  # lesions are the outliers
                smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(convolution=_SMOOTHING, matmul=-1),
            ),
        )

    def stacks(self) -> torch.Tensor:
        """What it is calibrated on, ``(N, S, H, W)``."""
        from bundle.data.simulate import SimulatedCases, load_head  # not for a network that is quantized already

        affine = torch.as_tensor(atlas_grid()[0])
        prepare = self.preprocessing.after_loading
        chosen = []
        for case in SimulatedCases([load_head(str(TEMPLATE))], None, self.volumes):
            volume = MetaTensor(torch.from_numpy(case.image)[None], affine=affine)
            prepared = prepare({"image": volume})["image"][0].as_tensor()
            padded = pad_slices(to_plane(prepared, self.plane), self.offsets)
            stacks = stack_padded(padded, self.offsets)
            chosen.append(stacks[torch.linspace(0, len(stacks) - 1, self.slices).long()])
        return torch.cat(chosen)

    def __repr__(self) -> str:
        """Equal settings, equal text: the cache of quantized networks rests on it."""
        settings = f"{self.offsets}, {self.plane}, {self.volumes}, {self.slices}, {_LEFT_IN_FLOAT}, {_SMOOTHING}"
        return f"SimulatedQuantization({self.preprocessing!r}, {settings}, NNCF {version('nncf')})"
