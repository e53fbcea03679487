"""Connected components of a mask; voxels that touch by a face, an edge or a corner are one component."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["bounding_box", "components", "remove_small_components", "voxel_ml"]


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a mask.

    Args:
        mask: ``(H, W, D)``, not 0 is lesion.

    Returns:
        for each voxel the number of its component, from 1, or 0 outside; and the number of components.
    """
    labels, count = ndimage.label(mask, np.ones((3, 3, 3), dtype=bool))
    return labels, count


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around a boolean mask; an empty box for an empty mask."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return boxes[0] if boxes else (slice(0),) * mask.ndim


def voxel_ml(affine: np.ndarray) -> float:
    """Return the volume of a voxel in mL, for an affine ``(4, 4)`` from voxels to world in mm."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def remove_small_components(mask: np.ndarray, affine: np.ndarray, smallest_ml: float) -> np.ndarray:
    """Return a mask without its small components; MONAI's ``RemoveSmallObjects`` needs scikit-image.

    Args:
        mask: ``(H, W, D)``, 0 outside the lesions.
        affine: voxels to world in mm, ``(4, 4)``.
        smallest_ml: components below this volume in mL are removed; 0 keeps all.
    """
    if smallest_ml == 0:
        return mask
    labels, _ = components(mask)
    sizes_ml = np.bincount(labels.ravel()) * voxel_ml(affine)
    return np.where((sizes_ml >= smallest_ml)[labels], mask, mask.dtype.type(0))
