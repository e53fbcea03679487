"""The contrasts in which T1w scans are found: sequences, field strengths, and contrast agent."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from bundle.data.simulate.fields import smooth_noise
from bundle.data.simulate.landmarks import depth_below_hull, fluid_level, offset_from_midline
from bundle.data.simulate.lesions import box_of
from bundle.data.simulate.tissues import Tissue

__all__ = ["add_contrast_agent", "map_contrast", "vary_contrast"]

# Share of the cases with a contrast of their own, and with which: grey and fluid's intensities, white matter being 1.
_MAPPED_SHARE = 0.75
_SEQUENCES = {
    "mprage": (0.45, (0.50, 0.68), (0.10, 0.25)),
    "gradient echo": (0.40, (0.66, 0.80), (0.18, 0.38)),
    "low field": (0.15, (0.76, 0.85), (0.28, 0.42)),
}
_AGENT_SHARE = 0.10

_BRIGHTEST = 1.5


def _level(image: np.ndarray, tissue: np.ndarray, kind: Tissue, default: float) -> float:
    values = image[tissue == kind]
    return float(np.median(values[::5])) if len(values) else default


def map_contrast(image: np.ndarray, tissue: np.ndarray, grey: float, fluid: float) -> np.ndarray:
    """Return the head with other intensities of grey matter and fluid, by a smooth map that keeps their order.

    The map goes through 0, the levels of fluid, grey and white matter (medians of the tissues), and is straight beyond
    (monotone cubic interpolation, Fritsch and Butland 1984).

    Args:
        image: T1w ``(H, W, D)``, about 1 in white matter, 0 outside the head.
        tissue: :class:`Tissue` of each voxel.
        grey: level of grey matter asked for, below 1.
        fluid: level of fluid asked for, below ``grey``.

    Returns:
        a new image of the same shape, float32.
    """
    white = _level(image, tissue, Tissue.WHITE, 1.0)
    old_grey = min(_level(image, tissue, Tissue.GREY, 0.65), 0.95 * white)
    old_fluid = min(max(fluid_level(image, tissue), 0.05), 0.8 * old_grey)
    # Straight beyond white matter: fat and vessels stay as bright as they were beside it.
    levels = np.array([0, old_fluid, old_grey, white, white + 1, white + 2])
    wanted = np.array([0, fluid, grey, white, white + 1, white + 2])
    table = np.linspace(0, levels[-1], 4096)
    mapped = PchipInterpolator(levels, wanted)(table).astype(np.float32)
    position = np.clip(image, 0, levels[-1]) * np.float32((len(table) - 1) / levels[-1])
    below = position.astype(np.int16)
    np.minimum(below, len(table) - 2, out=below)
    changed: np.ndarray = mapped[below] + (mapped[below + 1] - mapped[below]) * (position - below)
    return changed.astype(np.float32)


def _ridge(distance: np.ndarray, width_mm: float) -> np.ndarray:
    """Share of a sheet or tube of the width in each voxel, by the distance from its middle."""
    ridge: np.ndarray = np.clip(width_mm / 2 + 0.5 - np.abs(distance), 0, 1)
    return ridge


def _sinuses(depth: np.ndarray, offset: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the superior sagittal, the transverse and the straight sinus in each voxel."""
    inside = np.argwhere(depth[::4, ::4, ::4] > 0) * 4
    (_, back, low), (_, front, high) = inside.min(axis=0), inside.max(axis=0)
    _, y, z = np.ogrid[tuple(slice(extent) for extent in depth.shape)]
    tentorium = low + rng.uniform(0.30, 0.37) * (high - low)
    behind = y < back + 0.35 * (front - back)
    outer = depth - rng.uniform(-1.5, 1.0)
    # A sinus is wide here and narrow there, and flow makes it uneven.
    width = 1 + 0.3 * smooth_noise(rng, depth.shape, 12.0)
    sagittal = np.clip(rng.uniform(1.5, 3.0) * width - np.hypot(outer, offset) + 0.5, 0, 1)
    sagittal *= (z > tentorium) & ((z > low + 0.5 * (high - low)) | behind)
    across = np.hypot(outer, z - tentorium + rng.uniform(-0.1, 0.25) * (y - back))
    transverse = np.clip(rng.uniform(1.0, 2.5) * width - across + 0.5, 0, 1) * behind
    # From the vein of Galen, behind the corpus callosum, down to where the others meet.
    share = np.clip((y - back) / (0.38 * (front - back)), 0, 1)
    below = z - (tentorium + share * (low + 0.52 * (high - low) - tentorium))
    straight = np.clip(rng.uniform(0.8, 1.8) * width - np.hypot(offset, below) + 0.5, 0, 1) * (share < 1)
    sinuses: np.ndarray = np.maximum(np.maximum(sagittal, transverse), straight * (depth > 0))
    return sinuses


def _vessels(tissue: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of vessels in each voxel: lines where the zero level of smooth noise meets the fluid of the sulci."""
    sheets = smooth_noise(rng, tissue.shape, rng.uniform(9, 14))
    # The noise changes by about 1.7 a scale: its zero level is a sheet about this many mm thick.
    sheet = np.clip(1.6 - 6.5 * np.abs(sheets), 0, 1)
    shallow = (depth > -2) & (depth < 1.5)
    veins = np.clip(1.6 - 6.5 * np.abs(smooth_noise(rng, tissue.shape, rng.uniform(14, 20))), 0, 1)
    inside = ndimage.uniform_filter((tissue == Tissue.CSF).astype(np.float32), 2)
    vessels: np.ndarray = np.maximum(sheet * np.minimum(1.5 * inside, 1), veins * shallow)
    return vessels


def _choroid_plexus(tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the choroid plexus in each voxel: tufts in the bodies and atria of the lateral ventricles."""
    ventricle = tissue == Tissue.VENTRICLE
    where = np.argwhere(ventricle[::3, ::3, ::3]) * 3
    if len(where) < 20:
        return np.zeros(tissue.shape, dtype=np.float32)
    back, front = np.percentile(where[:, 1], (8, 70))
    y = np.arange(tissue.shape[1])[None, :, None]
    tufts = np.clip(smooth_noise(rng, tissue.shape, 4.0) - rng.uniform(0.4, 1.0), 0, 1)
    inner = ndimage.uniform_filter(ventricle.astype(np.float32), 3)
    choroid: np.ndarray = np.clip(2 * tufts * inner, 0, 1) * ventricle * ((y > back) & (y < front))
    return choroid


def add_contrast_agent(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the head as it looks after contrast agent: bright sinuses, vessels, dura and choroid plexus.

    Args:
        image: T1w ``(H, W, D)``, about 1 in white matter, 0 outside the head.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.

    Returns:
        a new image of the same shape, nowhere darker, 0 where the image was 0.
    """
    box = box_of(tissue >= Tissue.CSF, 8)
    enhanced = image.copy()
    enhanced[box] = _enhance(image[box], tissue[box], rng)
    return enhanced


def _enhance(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    depth, offset = depth_below_hull(tissue), offset_from_midline(tissue)
    patchy = np.clip(rng.uniform(0.0, 0.6) + 0.5 * smooth_noise(rng, tissue.shape, 15.0), 0, 1)
    falx = _ridge(offset, 0.6) * ((tissue == Tissue.CSF) & (depth > 0))
    dura = np.maximum(_ridge(depth + rng.uniform(0, 1.5), rng.uniform(0.2, 0.9)), 0.7 * falx) * patchy
    enhanced = image.copy()
    for share, lowest, highest in (
        (dura, 0.75, 1.15),
        (_choroid_plexus(tissue, rng), 0.8, 1.3),
        (_vessels(tissue, depth, rng), 0.9, 1.4),
        (_sinuses(depth, offset, rng), 1.1, _BRIGHTEST),
    ):
        level = np.maximum(enhanced, rng.uniform(lowest, highest))
        enhanced += share * (level - enhanced)
    return np.where(image > 0, enhanced, 0).astype(np.float32)


def vary_contrast(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Return the head in a contrast as found among T1w scans, in a share of the cases after contrast agent.

    Args:
        image: T1w ``(H, W, D)`` of a healthy head, about 1 in white matter, 0 outside the head.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness; the same state gives the same bytes.

    Returns:
        a new image of the same shape, float32, and the names of what was done.
    """
    names = []
    if rng.random() < _MAPPED_SHARE:
        sequences = list(_SEQUENCES)
        name = sequences[rng.choice(len(sequences), p=[share for share, _, _ in _SEQUENCES.values()])]
        _, grey, fluid = _SEQUENCES[name]
        image = map_contrast(image, tissue, rng.uniform(*grey), rng.uniform(*fluid))
        names.append(name)
    if rng.random() < _AGENT_SHARE:
        image = add_contrast_agent(image, tissue, rng)
        names.append("contrast agent")
    return image.copy(), names
