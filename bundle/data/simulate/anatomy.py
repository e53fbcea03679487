"""What old age and an old lesion do to a head around the lesion: wider ventricles and sulci, and look-alikes.

Nothing here is lesion: it is what a network takes for lesion when it has not seen it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise, upsample, warp
from bundle.data.simulate.tissues import Tissue

__all__ = ["add_lacunes", "add_white_matter_changes", "widen_fluid_spaces", "widen_sulci_regionally"]

# Distances are taken on every second voxel: the fields are smooth, and it is eight times quicker.
_COARSE = 2


def _pull(fluid: np.ndarray, reach_mm: float, near: np.ndarray | float, spacing: int = _COARSE) -> np.ndarray:
    """Displacement of 1 mm at the border of the fluid, pointing into it, that fades with the distance.

    Args:
        fluid: what is to look wider.
        reach_mm: the distance at which the displacement has fallen to 37 %.
        near: weight of each voxel.
        spacing: of the voxels, in mm.
    """
    distance = ndimage.distance_transform_edt(~fluid, sampling=spacing).astype(np.float32)
    smooth = ndimage.gaussian_filter(distance, 1.0, truncate=2)
    direction = np.stack(np.gradient(smooth, spacing))
    direction /= np.maximum(np.linalg.norm(direction, axis=0), 0.5)
    pull: np.ndarray = -direction * np.exp(-distance / reach_mm) * np.minimum(distance, 1) * near
    return pull


def widen_fluid_spaces(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, lesion: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ventricles and sulci enlarged: everywhere a little at random, and near a large lesion much more.

    The tissue beside the fluid is pulled away from it, and the fluid follows (ex vacuo dilatation).

    Args:
        image: T1w ``(H, W, D)`` at 1 mm.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.
        lesion: where the loss of tissue is, boolean; None widens everywhere only.

    Returns:
        image and tissue, changed.
    """
    coarse = (slice(None, None, _COARSE),) * 3
    ventricle, sulci = tissue[coarse] == Tissue.VENTRICLE, tissue[coarse] == Tissue.CSF
    whole_ventricle_mm, whole_sulci_mm = rng.gamma(1.0, 1.2), rng.gamma(1.0, 0.25)
    near: np.ndarray | float = 0.0
    lesion_ventricle_mm = lesion_sulci_mm = 0.0
    if lesion is not None:
        volume_ml = lesion.sum() / 1000
        near = np.exp(-0.5 * (ndimage.distance_transform_edt(~lesion[coarse], sampling=_COARSE) / 14.0) ** 2)
        large = min(volume_ml / 40, 1.0)
        lesion_ventricle_mm, lesion_sulci_mm = large * rng.uniform(0, 9), large * rng.uniform(0, 1.2)
    reach_mm = 10.0 + lesion_ventricle_mm
    displacement = _pull(ventricle, reach_mm, min(whole_ventricle_mm, 4.0) + lesion_ventricle_mm * near)
    displacement += _pull(sulci, 2.5, min(whole_sulci_mm, 1.0) + lesion_sulci_mm * near)
    field = upsample(displacement, tissue.shape)
    return warp(image, field), warp(tissue, field, nearest=True)


def widen_sulci_regionally(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with wide sulci in one region, a lobe or a Sylvian fissure, or the same one on both sides.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image and tissue, changed.
    """
    sulci = tissue == Tissue.CSF
    changed, changed_tissue = image.copy(), tissue.copy()
    places = np.argwhere(sulci[::4, ::4, ::4]) * 4
    if not len(places):
        return changed, changed_tissue
    left, right = np.flatnonzero((tissue >= Tissue.CSF).any(axis=(1, 2)))[[0, -1]]
    centre = rng.choice(places)
    mirrored = np.array([left + right - centre[0], *centre[1:]])
    reach, widening_mm = int(rng.uniform(22, 40)), rng.uniform(1.5, 3.5)
    for middle in (centre, mirrored)[: int(rng.integers(1, 3))]:
        box = tuple(slice(max(c - reach, 0), min(c + reach, n)) for c, n in zip(middle, image.shape, strict=True))
        grid = np.ogrid[box]
        distance = sum((g - c) ** 2 for g, c in zip(grid, middle, strict=True)) / reach**2
        near = np.maximum(1 - distance, 0) ** 2
        if keep_off[box].any():
            near *= np.clip((ndimage.distance_transform_edt(~keep_off[box]) - 1) / 6, 0, 1)
        field = _pull(sulci[box], 3.0, near * widening_mm, spacing=1).astype(np.float32)
        moved = warp(changed_tissue[box], field, nearest=True)
        # Neither what is around the brain is moved, nor anything of it into the brain.
        free = ~keep_off[box] & (tissue[box] >= Tissue.CSF) & (moved >= Tissue.CSF)
        changed[box] = np.where(free, warp(changed[box], field), changed[box])
        changed_tissue[box] = np.where(free, moved, changed_tissue[box])
    return changed, changed_tissue


def add_lacunes(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray, count: int
) -> np.ndarray:
    """Small round holes of 2 to 4 mm in deep tissue, dark as fluid: old lacunes and wide perivascular spaces.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.
        keep_off: boolean, where the middle of none may be.
        count: how many.

    Returns:
        the image, changed.
    """
    solid = ndimage.binary_erosion((tissue == Tissue.GREY) | (tissue == Tissue.WHITE), iterations=3) & ~keep_off
    places = np.argwhere(solid)
    changed = image.copy()
    for centre in rng.choice(places, min(count, len(places))) if len(places) else []:
        box = tuple(slice(max(c - 5, 0), c + 6) for c in centre)
        grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1)
        grid = grid[tuple(slice(0, n) for n in image[box].shape)]
        radii = rng.uniform(0.9, 2.0) * rng.uniform(0.8, 1.2, 3)
        edge = np.linalg.norm((grid - centre) / radii, axis=-1)
        share = np.clip((1.3 - edge) / 0.6, 0, 1) * rng.uniform(0.6, 1.0)
        changed[box] = changed[box] * (1 - share) + np.minimum(changed[box], rng.uniform(0.2, 0.4)) * share
    return changed


def add_white_matter_changes(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White matter made greyer in patches and caps around the ventricles, to 0.65 to 0.9 of its intensity.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.

    Returns:
        the image, changed.
    """
    coarse = (slice(None, None, _COARSE),) * 3
    distance = ndimage.distance_transform_edt(tissue[coarse] != Tissue.VENTRICLE, sampling=_COARSE)
    patches = smooth_noise(rng, distance.shape, 4.0) - distance / rng.uniform(3, 12)
    share = np.clip(patches - rng.uniform(-1.0, 1.0), 0, 1) * (tissue[coarse] == Tissue.WHITE)
    loss = upsample(ndimage.gaussian_filter(share.astype(np.float32), 0.6), tissue.shape) * rng.uniform(0.10, 0.35)
    changed: np.ndarray = image * (1 - loss)
    return changed
