"""What is lesion in a label, and the connected components of a mask.

Voxels that touch by a face, an edge or a corner are one component.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy import ndimage

from bundle.errors import InputError

__all__ = ["bounding_box", "components", "lesion_voxels", "remove_small_components", "voxel_ml"]

_ROUNDED = 1e-3  # a stored scaling makes 254.9999 of 255
_MOST_VALUES, _INVERTED_FROM = 32, 0.85
_log = logging.getLogger(__name__)


def lesion_voxels(label: np.ndarray, name: object) -> np.ndarray:
    """Return where a label is lesion, as booleans of its shape: the same for training, evaluation and simulation.

    Every whole number above 0 is lesion; where there are several, they are named in a warning.

    Args:
        label: its voxels.
        name: the file, for the message.

    Raises:
        InputError: if a voxel is below 0, between whole numbers or NaN; if there are more values than a mask has, or
            nearly all voxels are lesion.
    """
    if label.dtype.kind not in "biuf":
        raise InputError(f"{name} has {label.dtype.name} voxels: a mask of 0 and 1 is expected.")
    lesion = label > 0.5
    if label.dtype.kind in "if":
        bad = label[~((np.abs(label - np.round(label)) <= _ROUNDED) & (label > -0.5))]
        if bad.size:
            raise InputError(
                f"{name} has {bad.size} voxels such as {float(bad[0]):g}: a mask of 0 and 1 is expected; threshold a "
                "probability at 0.5 first."
            )
    values = np.unique(np.round(label[lesion]))
    if len(values) > _MOST_VALUES:
        raise InputError(f"{name} has {len(values)} values besides 0: it is an image or an atlas, a mask is expected.")
    if (share := lesion.mean()) > _INVERTED_FROM:
        raise InputError(f"{name} is lesion in {share:.0%} of its voxels: it is inverted, lesion is 1 and the rest 0.")
    if len(values) > 1:
        shown = ", ".join(f"{value:g}" for value in values[:6]) + (" ..." if len(values) > 6 else "")
        _log.warning("%s has the values %s besides 0: all of them are taken for lesion.", name, shown)
    return lesion


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a mask.

    Args:
        mask: ``(H, W, D)``, not 0 is lesion.

    Returns:
        for each voxel the number of its component, from 1, or 0 outside; and the number of components.
    """
    box, labels = bounding_box(mask != 0), np.zeros(mask.shape, dtype=np.int32)
    labels[box], count = ndimage.label(mask[box], np.ones((3, 3, 3), dtype=bool))  # most of a volume is not lesion
    return labels, count


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around a boolean mask; an empty box for an empty mask."""
    sides = (mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)) for axis in range(mask.ndim))
    ends = [np.flatnonzero(side)[[0, -1]] if side.any() else (0, -1) for side in sides]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


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
    box, kept = bounding_box(mask != 0), mask.copy()
    labels, _ = components(mask[box])
    sizes_ml = np.bincount(labels.ravel()) * voxel_ml(affine)
    kept[box][sizes_ml[labels] < smallest_ml] = 0
    return kept
