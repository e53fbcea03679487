"""The deterministic way of a volume to the network, the same in training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monai.transforms import (
    Compose,
    LoadImaged,
    MapTransform,
    Orientationd,
    Resized,
    ResizeWithPadOrCropd,
    Spacingd,
    SpatialCropd,
)
from monai.utils import ensure_tuple, look_up_option

from bundle.transforms.checks import CheckVolumed
from bundle.transforms.intensity import NormalizeHeadIntensityd
from bundle.transforms.spatial import BrainBoxd

__all__ = ["VolumePreprocessing"]

Box = Literal["brain", "thesis_180", "thesis_192"]

_ALL_SLICES = 10_000


def _box(keys: Sequence[str], box: Box, slice_size: int) -> list[MapTransform]:
    if box == "brain":
        return [BrainBoxd(keys, source_key=keys[0], size=(slice_size, slice_size))]
    if box == "thesis_192":
        return [ResizeWithPadOrCropd(keys, (slice_size, slice_size, -1))]
    # D-UNet's voxels x 10..190, y 40..220 of the 197 x 233 grid.
    return [
        SpatialCropd(keys, roi_start=(10, 40, 0), roi_end=(190, 220, _ALL_SLICES)),
        ResizeWithPadOrCropd(keys, (180, 180, -1)),
        # PyTorch's plain "nearest" would move the label half a voxel against the image.
        Resized(keys, (slice_size, slice_size, -1), mode=["trilinear", "nearest-exact"][: len(keys)]),
    ]


class VolumePreprocessing(Compose):
    """Load, check, RAS orientation, spacing, head intensity, in-plane box: every step has its inverse or needs none.

    It begins with MONAI's ``LoadImaged``, which tools replace when they hold the image already.

    Args:
        keys: the image, or the image and its label (interpolated to the nearest voxel).
        spacing_mm: voxel size that the network sees, the same along all axes.
        box: ``"brain"`` is ``slice_size`` voxels a side and placed on the brain; ``"thesis_192"`` the same about the
            centre of the volume (thesis 3.5.1); ``"thesis_180"`` D-UNet's fixed box of 180 voxels, resized to
            ``slice_size`` (thesis 4.4.1). The two boxes of the thesis can cut off lesion: see docs/README.md.
        slice_size: H and W of the slices that come out, in voxels.

    The result is ``(1, slice_size, slice_size, D)``, float32, 0 outside the head, 1 at the head's median.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = ("image", "label"),
        spacing_mm: float = 1.0,
        box: Box = "brain",
        slice_size: int = 192,
    ) -> None:
        keys = ensure_tuple(keys)
        look_up_option(box, Box.__args__)  # type: ignore[attr-defined]  # Literal keeps its choices there
        self.settings = {"keys": keys, "spacing_mm": spacing_mm, "box": box, "slice_size": slice_size}
        super().__init__(
            [
                # nibabel first: it knows .mgz, which MONAI would hand to ITK; the others follow where it cannot read.
                LoadImaged(keys, reader="NibabelReader", image_only=True, ensure_channel_first=True),
                CheckVolumed(keys[0]),
                Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
                Spacingd(keys, pixdim=(spacing_mm,) * 3, mode=["bilinear", "nearest"][: len(keys)]),
                NormalizeHeadIntensityd(keys[0]),
                *_box(keys, box, slice_size),
            ]
        )

    def __repr__(self) -> str:
        """Equal settings, equal text: the slice dataset's disk cache rests on it."""
        return f"VolumePreprocessing({self.settings})"
