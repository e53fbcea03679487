"""A simple simulator of chronic lesions in real T1w heads: what it makes is simulated, not a patient.

Smooth irregular blobs in brain tissue, as dark as a real chronic lesion is at each depth from its border.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.data.brain import brain_mask

__all__ = ["draw_lesion", "draw_volume_ml", "paint_lesion", "simulate_lesions", "white_matter_mode"]

# T1w intensity relative to the white matter mode by depth from the border in mm, measured in a real chronic lesion.
_DEPTH_MM = (0.5, 1.5, 2.5, 4.0, 6.5, 10.0)
_PROFILE = (0.49, 0.43, 0.38, 0.33, 0.27, 0.24)

# Lesion volumes of ATLAS R2 in mL at percentiles 5, 25, 50, 75, 95, closed at both ends.
_QUANTILES = (0.0, 0.05, 0.25, 0.50, 0.75, 0.95, 1.0)
_VOLUMES_ML = (0.08, 0.14, 1.0, 4.3, 31.9, 135.6, 200.0)


def white_matter_mode(head: np.ndarray, mask: np.ndarray) -> float:
    """The most frequent intensity in the brighter half of the brain.

    Args:
        head: T1w intensities ``(H, W, D)``.
        mask: voxels to look at.
    """
    values = head[mask]
    counts, edges = np.histogram(values, bins=64, range=tuple(np.percentile(values, (50, 99.5))))
    peak = int(ndimage.gaussian_filter1d(counts.astype(float), 2).argmax())
    return float(edges[peak] + edges[peak + 1]) / 2


def draw_volume_ml(rng: np.random.Generator) -> float:
    """A lesion volume in mL from the distribution of ATLAS R2."""
    return float(np.exp(np.interp(rng.random(), _QUANTILES, np.log(_VOLUMES_ML))))


def draw_lesion(tissue: np.ndarray, volume_ml: float, rng: np.random.Generator) -> np.ndarray:
    """One lesion: the tissue nearest to a random centre, in a metric that is stretched and roughened at random.

    Args:
        tissue: voxels that may be lesion, ``(H, W, D)`` at 1 mm.
        volume_ml: its volume.
        rng: source of randomness.

    Returns:
        boolean mask ``(H, W, D)`` of one piece or nearly so, inside ``tissue``.
    """
    count = max(round(volume_ml * 1000), 8)
    centre = rng.choice(np.argwhere(tissue))
    radius = (count * 3 / (4 * np.pi)) ** (1 / 3)
    reach = int(3 * radius) + 6
    window = tuple(slice(max(c - reach, 0), c + reach + 1) for c in centre)
    shape = tissue[window].shape
    offsets = np.stack(
        np.meshgrid(*[np.arange(s.start, s.start + n) for s, n in zip(window, shape, strict=True)], indexing="ij"), -1
    )
    offsets = (offsets - centre) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    distance = np.linalg.norm(offsets / rng.uniform(0.7, 1.4, 3), axis=-1) / radius
    roughness = ndimage.gaussian_filter(rng.normal(size=shape), max(radius / 4, 1.0))
    score = distance + rng.uniform(0.2, 0.5) * roughness / roughness.std()
    score[~tissue[window]] = np.inf
    count = min(count, int(np.isfinite(score).sum()))
    pieces, found = ndimage.label(score <= np.partition(score.ravel(), count - 1)[count - 1])
    sizes = np.bincount(pieces.ravel(), minlength=found + 1)
    sizes[0] = 0
    lesion = np.zeros(tissue.shape, dtype=bool)
    lesion[window] = np.isin(pieces, np.flatnonzero(sizes >= max(0.05 * count, 4)))
    return lesion


def paint_lesion(head: np.ndarray, lesion: np.ndarray, mode: float, rng: np.random.Generator) -> np.ndarray:
    """The head with the lesion's tissue as dark as its depth asks for.

    Args:
        head: ``(H, W, D)`` at 1 mm.
        lesion: boolean mask of the same shape.
        mode: the white matter mode of the head.
        rng: source of randomness.

    Returns:
        a new image; voxels more than 2 mm from the lesion along an axis are unchanged.
    """
    depth = ndimage.distance_transform_edt(lesion)
    level = np.interp(depth, _DEPTH_MM, _PROFILE) * rng.uniform(0.8, 1.25)
    texture = ndimage.gaussian_filter(rng.normal(size=head.shape), rng.uniform(0.6, 1.5))
    level = np.maximum(level + rng.uniform(0.04, 0.10) * texture / texture.std(), 0.05)
    # Strands of spared tissue, and the rim's partial volume.
    strands = ndimage.gaussian_filter(rng.normal(size=head.shape), 2.0)
    damage = np.clip(1.0 - rng.uniform(0.0, 0.35) * np.maximum(strands / strands.std(), 0), 0, 1)
    share = ndimage.gaussian_filter(lesion.astype(np.float32), rng.uniform(0.5, 0.9), truncate=2.0) * damage
    painted: np.ndarray = head * (1 - share) + np.minimum(level * mode, np.maximum(head, level * mode)) * share
    return painted.astype(np.float32)


def simulate_lesions(
    head: np.ndarray, rng: np.random.Generator, brain: np.ndarray | None = None, volume_ml: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A head with simulated chronic lesions, and their mask.

    Args:
        head: T1w ``(H, W, D)`` in RAS at 1 mm, 0 outside the head.
        rng: source of randomness; the same state gives the same case.
        brain: boolean brain mask; :func:`brain_mask` of the head if None.
        volume_ml: volume of all lesions together; drawn from ATLAS's distribution if None.

    Returns:
        the image, float32, and the mask, uint8, both ``(H, W, D)``.
    """
    brain = brain_mask(head) if brain is None else brain
    mode = white_matter_mode(head, brain)
    tissue = brain & ndimage.binary_closing(brain & (head > 0.45 * mode), iterations=1)
    total_ml = draw_volume_ml(rng) if volume_ml is None else volume_ml
    shares = rng.dirichlet(np.full(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]), 1.0))
    lesions = [draw_lesion(tissue, max(total_ml * share, 0.03), rng) for share in shares]
    lesion = np.logical_or.reduce(lesions)
    return paint_lesion(head, lesion, mode, rng), lesion.astype(np.uint8)
