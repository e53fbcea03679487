"""The deterministic preprocessing of a volume, the same in training, evaluation and inference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, get_args

import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    Orientationd,
    Resized,
    ResizeWithPadOrCropd,
    Spacingd,
    SpatialCropd,
)
from monai.utils import ensure_tuple, look_up_option

from bundle.checks import CheckLabeld, CheckVolumed
from bundle.mni import atlas_brain
from bundle.transforms.atlas import ResampleToAtlasd
from bundle.transforms.bias_field import CorrectBiasFieldd
from bundle.transforms.intensity import AirToZerod, NormalizeHeadIntensityd
from bundle.transforms.reader import HeaderReader
from bundle.transforms.registration import AffineToMNId, OnFailure
from bundle.transforms.spatial import BrainBoxd

__all__ = ["VolumePreprocessing"]

Box = Literal["brain", "thesis_180", "thesis_192"]
Space = Literal["native", "mni"]

_ALL_SLICES = 10_000


class _Spacingd(Spacingd):
    """MONAI's ``Spacingd`` on the images alone; it would take MONAI Label's ``image_path`` for the image's metadata."""

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        images = {key: data[key] for key in self.key_iterator(dict(data))}
        return {**data, **super().__call__(images, lazy)}


def _load(keys: Sequence[str]) -> LoadImaged:
    """Return MONAI's loader, without its warnings that NVIDIA's decoder for pydicom is not installed."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "NvImgCodecPydicomReader")
        # Ours is first: it reads .mgz too, for which MONAI would choose ITK; the other readers are tried next.
        return LoadImaged(keys, reader=HeaderReader, image_only=True)


def _grid(keys: Sequence[str], space: Space, spacing_mm: float, on_failure: OnFailure) -> list[MapTransform]:
    """Return the steps from RAS orientation to the network's voxels."""
    mode = ["bilinear", "nearest"][: len(keys)]
    if space == "mni":
        return [
            AffineToMNId(keys, source_key=keys[0], on_failure=on_failure),
            ResampleToAtlasd(keys, spacing_mm, mode),
            NormalizeHeadIntensityd(keys[0], atlas_brain(spacing_mm)),
        ]
    return [_Spacingd(keys, pixdim=(spacing_mm,) * 3, mode=mode), NormalizeHeadIntensityd(keys[0])]


def _box(keys: Sequence[str], box: Box, slice_size: int, space: Space, spacing_mm: float) -> list[MapTransform]:
    """Return the steps to slices of the network's size."""
    if box == "brain" and space == "native":
        return [BrainBoxd(keys, source_key=keys[0], size=(slice_size, slice_size))]
    if box in ("brain", "thesis_192"):
        return [ResizeWithPadOrCropd(keys, (slice_size, slice_size, -1))]
    # D-UNet's voxels x 10..190, y 40..220 of the 197 x 233 grid of 1 mm.
    left, back, size = (round(voxels / spacing_mm) for voxels in (10, 40, 180))
    return [
        SpatialCropd(keys, roi_start=(left, back, 0), roi_end=(left + size, back + size, _ALL_SLICES)),
        ResizeWithPadOrCropd(keys, (size, size, -1)),
        # PyTorch's plain "nearest" would shift the label by half a voxel relative to the image.
        Resized(keys, (slice_size, slice_size, -1), mode=["trilinear", "nearest-exact"][: len(keys)]),
    ]


class VolumePreprocessing(Compose):
    """Loading, checks, RAS orientation, space and spacing, head intensity and box, with an inverse.

    The first step is MONAI's ``LoadImaged``, which tools replace or leave out if they have the image in memory. That
    image may have any type and no channel: the next two steps convert it.

    Args:
        keys: the image, or the image and its label (interpolated to the nearest voxel).
        spacing_mm: voxel size for the network, the same along all axes.
        box: ``"brain"`` has ``slice_size`` voxels a side and is centred on the brain; in MNI space, where all brains
            are at the same place, it is centred on the grid, and 192 mm are enough for the template's brain.
            ``"thesis_192"`` is centred on the volume (thesis 3.5.1); ``"thesis_180"`` is D-UNet's fixed box of 180 mm,
            resized to ``slice_size`` (thesis 4.4.1). In native space the two boxes of the thesis can cut off
            lesions: see docs/README.md.
        slice_size: H and W of the resulting slices, in voxels.
        space: ``"native"`` does not move the head; ``"mni"`` registers it to MNI space, the space of the thesis's data,
            and resamples it once, to :func:`bundle.mni.atlas_grid`.
        on_failure: what to do with a head that cannot be registered, as for :class:`bundle.transforms.AffineToMNI`.
        bias_correction: correct the bias field first, see :class:`bundle.transforms.CorrectBiasField`.

    The result is ``(1, slice_size, slice_size, D)``, float32, 0 outside the head, 1 at the median of the head (native)
    or of its brain (MNI).
    """

    def __init__(
        self,
        keys: str | Sequence[str] = ("image", "label"),
        spacing_mm: float = 1.0,
        box: Box = "brain",
        slice_size: int = 192,
        space: Space = "native",
        on_failure: OnFailure = "raise",
        bias_correction: bool = False,
    ) -> None:
        keys = ensure_tuple(keys)
        look_up_option(box, get_args(Box))
        look_up_option(space, get_args(Space))
        self.settings = {"keys": keys, "spacing_mm": spacing_mm, "box": box, "slice_size": slice_size, "space": space}
        self.on_failure, self.bias_correction = on_failure, bias_correction
        super().__init__(
            [
                _load(keys),
                EnsureChannelFirstd(keys),
                EnsureTyped(keys, dtype=torch.float32),
                CheckVolumed(keys[0]),
                *([CheckLabeld(keys[1:])] if keys[1:] else []),
                AirToZerod(keys[0]),
                Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
                *([CorrectBiasFieldd(keys[0])] if bias_correction else []),
                *_grid(keys, space, spacing_mm, on_failure),
                *_box(keys, box, slice_size, space, spacing_mm),
            ]
        )

    @property
    def after_loading(self) -> Compose:
        """Return the remaining steps for images in memory, float32, ``(1, H, W, D)``."""
        return self._steps_from(CheckVolumed)

    @property
    def after_registration(self) -> Compose:
        """Return the remaining steps for volumes that are in MNI space already, such as simulated ones.

        Raises:
            ValueError: in native space, which has no registration.
        """
        return self._steps_from(ResampleToAtlasd)

    def _steps_from(self, kind: type[MapTransform]) -> Compose:
        kinds = [type(step) for step in self.transforms]
        if kind not in kinds:
            raise ValueError(
                f"There is no {kind.__name__} in this preprocessing: its space is {self.settings['space']}."
            )
        return Compose(self.transforms[kinds.index(kind) :])

    def __repr__(self) -> str:
        """Return a text of the settings, the key of the slice dataset's cache on disk."""
        return (
            f"VolumePreprocessing({self.settings}, on_failure={self.on_failure!r}, "
            f"bias_correction={self.bias_correction})"
        )
