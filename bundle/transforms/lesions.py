"""Masks without the lesions that are too small."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type
from scipy import ndimage

__all__ = ["RemoveSmallLesions", "RemoveSmallLesionsd"]

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


class RemoveSmallLesions(Transform):
    """Leaves small pieces out of a mask; voxels that touch by a face, an edge or a corner are one piece.

    MONAI's ``RemoveSmallObjects`` needs scikit-image.

    Args:
        smallest_lesion_ml: pieces below this volume go, in mL.

    Raises:
        ValueError: when it is negative.
    """

    def __init__(self, smallest_lesion_ml: float) -> None:
        if smallest_lesion_ml < 0:
            raise ValueError(f"smallest_lesion_ml must be 0 or more, got {smallest_lesion_ml}.")
        self.smallest_lesion_ml = smallest_lesion_ml

    def __call__(self, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """
        Args:
            mask: ``(H, W, D)``, 0 outside the lesions.
            affine: voxels to world in mm, ``(4, 4)``.

        Returns:
            a mask of the same kind.
        """
        if self.smallest_lesion_ml == 0:
            return mask
        pieces, _ = ndimage.label(mask, _NEIGHBOURS)
        sizes_ml = np.bincount(pieces.ravel()) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000
        return np.where((sizes_ml >= self.smallest_lesion_ml)[pieces], mask, mask.dtype.type(0))


class RemoveSmallLesionsd(MapTransform):
    """Dictionary version of :class:`RemoveSmallLesions`, for masks ``(1, H, W, D)``.

    Args:
        keys: the masks.
        smallest_lesion_ml: pieces below this volume go, in mL.
    """

    def __init__(self, keys: KeysCollection, smallest_lesion_ml: float) -> None:
        super().__init__(keys)
        self.remove = RemoveSmallLesions(smallest_lesion_ml)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, torch.Tensor]:
        """The data, without small lesions."""
        d: dict[Hashable, torch.Tensor] = dict(data)
        for key in self.key_iterator(d):
            mask = data[key]
            kept = self.remove(mask[0].numpy(force=True), mask.affine.numpy(force=True))
            d[key] = convert_to_dst_type(kept[None], mask)[0]
        return d
