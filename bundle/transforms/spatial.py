"""The in-plane box that the slices are cut to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import CropForeground, CropForegroundd

from bundle.transforms.intensity import inside_head

__all__ = ["BrainBox", "BrainBoxd", "brain_outline"]

# Between these depths below the top of the head its outline is that of the brain: under the skull cap's narrowing,
# above the eyes and the nose.
_TOP_MM, _BOTTOM_MM = 20.0, 90.0


def brain_outline(head: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, int]:
    """Return the outline of the brain from above: that of the head 20 to 90 mm below its top.

    Args:
        head: boolean mask ``(H, W, D)`` in RAS orientation.
        spacing_mm: between its axial slices.

    Returns:
        boolean outline ``(H, W)``, and the number of the head's topmost slice, the last one of an empty mask.
    """
    slices = np.flatnonzero(head.any(axis=(0, 1)))
    top = int(slices[-1]) if len(slices) else head.shape[2] - 1
    upper, lower = (max(top - round(depth / spacing_mm), 0) for depth in (_TOP_MM, _BOTTOM_MM))
    return np.any(head[:, :, lower : upper + 1], axis=2), top


class BrainBox(CropForeground):
    """Cuts the axial slices to a box of fixed size that is centred on the brain; pads where the box is larger.

    The centre is that of the head's outline 20 to 90 mm below its top, which needs no skull stripping. Invertible; the
    number of slices stays.

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
            start and end (exclusive) voxel of the box, which may lie outside the image.
        """
        head: np.ndarray = inside_head(img[0]).numpy(force=True)
        spacing_mm = float(img.pixdim[2]) if isinstance(img, MetaTensor) else 1.0
        outline, _ = brain_outline(head, spacing_mm)
        centre = [
            (line[0] + line[-1] + 1) / 2 if len(line) else extent / 2
            for line, extent in zip(
                (np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))), outline.shape, strict=True
            )
        ]
        start = np.round(np.asarray(centre) - self.size / 2).astype(int)
        return np.append(start, 0), np.append(start + self.size, head.shape[2])


class BrainBoxd(CropForegroundd):
    """Dictionary version of :class:`BrainBox`; one box for all keys.

    Args:
        keys: what is cut.
        source_key: the image that the box is placed on.
        size: H and W of the box in voxels.
    """

    def __init__(self, keys: KeysCollection, source_key: str, size: Sequence[int]) -> None:
        super().__init__(keys, source_key, start_coord_key=None, end_coord_key=None)
        self.cropper = BrainBox(size)
