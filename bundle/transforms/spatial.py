"""The in-plane box that slices are cropped to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import CropForeground, CropForegroundd

from bundle.transforms.intensity import inside_head

__all__ = ["BrainBox", "BrainBoxd", "brain_position"]

# Between these depths below the top of the head its outline is that of the brain: the skull cap is narrower above, and
# eyes and nose are below.
_TOP_MM, _BOTTOM_MM = 20.0, 90.0


def brain_position(head: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, int]:
    """Return the in-plane centre of the brain, which is that of the head's outline 20 to 90 mm below its top.

    Args:
        head: boolean mask ``(H, W, D)`` in RAS orientation.
        spacing_mm: distance between its axial slices.

    Returns:
        centre ``(2,)`` in voxels, that of the slice for an empty mask, and the index of the head's topmost slice, the
        last one for an empty mask.
    """
    slices = np.flatnonzero(head.any(axis=(0, 1)))
    top = int(slices[-1]) if len(slices) else head.shape[2] - 1
    upper, lower = (max(top - round(depth / spacing_mm), 0) for depth in (_TOP_MM, _BOTTOM_MM))
    outline = np.any(head[:, :, lower : upper + 1], axis=2)
    if not outline.any():
        outline = np.ones_like(outline)
    lines = (np.flatnonzero(np.any(outline, axis=axis)) for axis in (1, 0))
    return np.array([(line[0] + line[-1]) / 2 for line in lines]), top


class BrainBox(CropForeground):
    """Cropping of axial slices to a box of fixed size about the brain, padded where the box is larger than the slice.

    The centre is that of the head's outline 20 to 90 mm below its top, which needs no skull stripping. The transform is
    invertible and keeps the number of slices.

    Args:
        size: H and W of the box in voxels.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = np.asarray(size)

    def compute_bounding_box(self, img: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """
        Args:
            img: ``(1, H, W, D)`` in RAS orientation, 0 outside the head.

        Returns:
            start and end (exclusive) voxel of the box, which may be outside the image.
        """
        head: np.ndarray = inside_head(img[0]).numpy(force=True)
        spacing_mm = float(img.pixdim[2]) if isinstance(img, MetaTensor) else 1.0
        centre, _ = brain_position(head, spacing_mm)
        start = np.round(centre + 0.5 - self.size / 2).astype(int)
        return np.append(start, 0), np.append(start + self.size, head.shape[2])


class BrainBoxd(CropForegroundd):
    """Dictionary version of :class:`BrainBox`; one box for all keys.

    Args:
        keys: the images to crop.
        source_key: the image that gives the centre.
        size: H and W of the box in voxels.
    """

    def __init__(self, keys: KeysCollection, source_key: str, size: Sequence[int]) -> None:
        super().__init__(keys, source_key, start_coord_key=None, end_coord_key=None)
        self.cropper = BrainBox(size)
