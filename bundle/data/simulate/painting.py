"""How a chronic lesion looks on T1w."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise

__all__ = ["paint_lesion"]

# T1w intensity relative to the white matter mode by depth from the border in mm. In a real chronic lesion 0.49, 0.43,
# 0.38, 0.33, 0.27, 0.24 were measured; at the border a third of a voxel is healthy tissue, which painting adds again.
_DEPTH_MM = (0.5, 1.5, 2.5, 4.0, 6.5, 10.0)
_PROFILE = (0.38, 0.41, 0.38, 0.33, 0.27, 0.24)
# How much the tissue varies about it: much at the rim, little in the cavity.
_VARIATION = (0.14, 0.12, 0.10, 0.08, 0.06, 0.04)

# In the cortex too, where the profile's rim is hardly darker than grey matter is.
_DARKER_THAN_HEALTHY = 0.8

_FLUID = (0.16, 0.26)
_GLIOSIS_BELOW_ML = 15


def _level(lesion: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """T1w intensity of the lesion's voxels."""
    # A rim is where the rest of the brain begins: towards a sulcus there is none.
    depth = ndimage.distance_transform_edt(lesion | ~brain).astype(np.float32) - 0.5
    texture = 0.7 * smooth_noise(rng, lesion.shape, rng.uniform(1.5, 4.0)) + 0.5 * smooth_noise(rng, lesion.shape, 1.2)
    level = np.interp(depth, _DEPTH_MM, _PROFILE) * rng.uniform(0.85, 1.2)
    level += np.interp(depth, _DEPTH_MM, _VARIATION) * rng.uniform(0.4, 1.1) * texture
    if rng.random() < 0.7:  # a cavity of fluid in the deeper part, with a border of its own
        cavity = depth + 2.0 * smooth_noise(rng, lesion.shape, 6.0) > rng.uniform(1.0, 4.0)
        edge = ndimage.gaussian_filter(cavity.astype(np.float32), 0.7, truncate=2)
        level = level * (1 - edge) + rng.uniform(*_FLUID) * edge
    bounded: np.ndarray = np.maximum(level, 0.12).astype(np.float32)
    return bounded


def paint_lesion(image: np.ndarray, lesion: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The head with the lesion's tissue as dark as its depth asks for.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        lesion: boolean mask of the same shape, not empty.
        brain: boolean mask of its tissue and ventricles, towards which the lesion has a rim.
        rng: source of randomness.

    Returns:
        a new image; voxels more than 4 mm from the lesion are unchanged.
    """
    margin = 4
    ranges = (np.flatnonzero(lesion.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    box = tuple(slice(max(int(r[0]) - margin, 0), int(r[-1]) + 1 + margin) for r in ranges)
    healthy = image[box]
    if (
        lesion.sum() < _GLIOSIS_BELOW_ML * 1000 and rng.random() < 0.08
    ):  # scarred, not hollow: the anatomy shows through
        level = healthy * rng.uniform(0.45, 0.62)
    else:
        level = _level(lesion[box], brain[box], rng)
    # Strands of spared tissue, and the rim's partial volume, sharp or soft.
    strands = np.maximum(smooth_noise(rng, level.shape, rng.uniform(3, 6)) - rng.uniform(0.3, 1.5), 0)
    damage = np.clip(1 - rng.uniform(0.0, 0.5) * strands, 0.2, 1)
    share = ndimage.gaussian_filter(lesion[box].astype(np.float32), rng.uniform(0.45, 1.1), truncate=3) * damage
    painted = image.copy()
    darker = np.minimum(level, np.maximum(_DARKER_THAN_HEALTHY * healthy, 0.12))
    painted[box] = healthy * (1 - share) + np.minimum(darker, np.maximum(healthy, 0.12)) * share
    return painted
