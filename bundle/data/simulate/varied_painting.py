"""How chronic strokes of different kinds and ages look on T1w, in the contrast of the head they are in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise
from bundle.data.simulate.lesions import box_of, radius_mm
from bundle.data.simulate.painting import paint_lesion
from bundle.data.simulate.tissues import Tissue
from bundle.data.simulate.varied_lesions import VariedLesion

__all__ = ["GLIOTIC", "Levels", "levels_of", "paint_varied_lesion"]

GLIOTIC = (0.5, 0.7)
"""T1w intensity of scarred white matter as a share of the healthy one's."""

_MARGIN = 5
# In grey matter too a lesion is darker than what was there.
_DARKER_THAN_HEALTHY = 0.85
# Blur of the border in mm, narrowest and widest, by look.
_BORDER_MM = {"cavity": (0.4, 0.8), "gliotic": (0.8, 1.6), "laminar": (0.4, 0.6), "subacute": (1.2, 2.2)}
# Beyond these shares of the way from fluid to grey matter: a dead cortex, and a lesion that is not hollow yet.
_LAMINAR = (0.15, 0.6)
_SUBACUTE = (0.5, 0.85)
_FLUID_VOXELS = 60


@dataclass(frozen=True)
class Levels:
    """T1w intensities of a head's tissues, 1 at the white matter mode."""

    fluid: float
    grey: float
    white: float


def levels_of(image: np.ndarray, tissue: np.ndarray) -> Levels:
    """Medians of a head's tissues, of every second voxel; of fluid, the part that is not mixed with tissue.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, with grey and white matter.
    """
    every_second = (slice(None, None, 2),) * 3
    image, tissue = image[every_second], tissue[every_second]
    grey, white = (float(np.median(image[tissue == code])) for code in (Tissue.GREY, Tissue.WHITE))
    fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE)
    pure = ndimage.binary_erosion(fluid)
    if pure.sum() >= _FLUID_VOXELS:
        return Levels(min(float(np.median(image[pure])), 0.6 * grey), grey, white)
    values = image[fluid & (image > 0)]
    lowest = float(np.percentile(values, 20)) if values.size else 0.35 * grey
    return Levels(min(lowest, 0.6 * grey), grey, white)


def _ridges(rng: np.random.Generator, shape: tuple[int, ...], scale: float, width: float) -> np.ndarray:
    """Thin winding sheets, 1 in their middle, with gaps: 0..1."""
    sheets = np.clip(1 - np.abs(smooth_noise(rng, shape, scale)) / width, 0, 1)
    ridges: np.ndarray = sheets * np.clip(smooth_noise(rng, shape, 2 * scale) + rng.uniform(-0.4, 0.8), 0, 1)
    return ridges


def _cavity(
    healthy: np.ndarray, lesion: np.ndarray, tissue: np.ndarray, levels: Levels, rng: np.random.Generator
) -> np.ndarray:
    """Fluid with a scarred rim, strands of tissue in it, and patches of the cortex that was over it."""
    fluid = levels.fluid * rng.uniform(0.97, 1.2)
    to_white = levels.white - levels.fluid
    # The rim is where solid tissue begins: there is none towards a sulcus, a ventricle or the dura.
    solid = ~lesion & ((tissue == Tissue.GREY) | (tissue == Tissue.WHITE))
    depth = ndimage.distance_transform_edt(~solid) if solid.any() else np.full(lesion.shape, 8.0)
    # Rim and strands leave room for fluid, in a strip of cortex too.
    hollow = min(float(depth[lesion].max()) / 8, 1.0)
    width = hollow * rng.uniform(0.4, 2.0) * np.exp(0.5 * smooth_noise(rng, lesion.shape, 8.0))
    level = fluid + rng.uniform(0.2, 0.5) * to_white * np.exp(-((np.maximum(depth - 0.5, 0) / width) ** 2))
    for scale, share in ((rng.uniform(4, 7), rng.uniform(0.2, 0.6)), (rng.uniform(8, 14), rng.uniform(0.0, 0.7))):
        strands = _ridges(rng, lesion.shape, scale, rng.uniform(0.2, 0.5))
        level = np.maximum(level, fluid + hollow * share * (healthy - fluid) * strands)
    left = np.clip(1.5 * (smooth_noise(rng, lesion.shape, 9.0) - rng.uniform(0.2, 1.6)), 0, 1)
    cortex = (tissue == Tissue.GREY) * left * hollow * rng.uniform(0.4, 0.8)
    level = np.maximum(level, fluid + (healthy - fluid) * cortex)
    filled: np.ndarray = level * (1 + 0.05 * smooth_noise(rng, lesion.shape, 1.5))
    return filled


def _level(
    lesion: VariedLesion,
    mask: np.ndarray,
    healthy: np.ndarray,
    tissue: np.ndarray,
    levels: Levels,
    rng: np.random.Generator,
) -> np.ndarray:
    """T1w intensity of the lesion's voxels."""
    if lesion.look == "cavity":
        return _cavity(healthy, mask, tissue, levels, rng)
    texture = smooth_noise(rng, mask.shape, rng.uniform(5, 10)) + 0.5 * smooth_noise(rng, mask.shape, 1.3)
    if lesion.look == "gliotic":  # the anatomy shows through
        low, high = GLIOTIC
        factor = np.clip(rng.uniform(low + 0.03, high - 0.03) + 0.03 * texture, low, high)
        return np.maximum(healthy * factor, levels.fluid)
    share = rng.uniform(*(_LAMINAR if lesion.look == "laminar" else _SUBACUTE))
    level: np.ndarray = levels.fluid + (levels.grey - levels.fluid) * (share + 0.05 * texture)
    return level


def paint_varied_lesion(
    image: np.ndarray, lesion: VariedLesion, tissue: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The head with the lesion as its look asks for; nothing is brighter than before, and fluid stays fluid.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        lesion: what to paint; its mask is not empty.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.

    Returns:
        a new image, float32; voxels outside the brain, and more than 5 mm from the lesion, are unchanged.
    """
    levels = levels_of(image, tissue)
    box = box_of(lesion.mask, _MARGIN)
    mask, codes, healthy = lesion.mask[box], tissue[box], image[box]
    brain = codes >= Tissue.CSF
    painted = image.copy()
    if lesion.look == "mixed":
        darkened = paint_lesion(image, lesion.mask, tissue >= Tissue.GREY, rng)[box]
    else:
        level = _level(lesion, mask, healthy, codes, levels, rng)
        sigma = min(rng.uniform(*_BORDER_MM[lesion.look]), 0.25 * radius_mm(mask))
        # Of the brain's voxels around: at the dura a lesion does not fade out.
        blurred, around = (ndimage.gaussian_filter(m.astype(np.float32), sigma, truncate=2) for m in (mask, brain))
        share = np.where(ndimage.binary_dilation(mask, iterations=_MARGIN), blurred / np.maximum(around, 1e-3), 0)
        level = np.minimum(level, _DARKER_THAN_HEALTHY * healthy)
        darkened = healthy * (1 - share) + level * share
    # No darker than this head's fluid is, and where it was fluid before, as it was.
    darkened = np.minimum(np.maximum(darkened, 0.95 * levels.fluid), healthy)
    painted[box] = np.where(brain, darkened, healthy)
    return painted
