"""Fluid where most heads have less of it, and that is no lesion: cysts, a large cisterna magna, a cavity of the septum.

Each pushes the tissue aside, so image and tissues are changed together; the fluid is fluid in the tissues too.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise, upsample, warp
from bundle.data.simulate.landmarks import (
    COARSE,
    coarse_hull,
    depth_below_hull,
    fluid_level,
    offset_from_midline,
    place_in_brain,
)
from bundle.data.simulate.tissues import Tissue

__all__ = ["add_arachnoid_cyst", "add_septum_cavity", "enlarge_cisterna_magna", "push_aside"]

# Of the box around the brain, from left, behind and below; each also on the other side.
_TEMPORAL_POLE = (0.22, 0.70, 0.25)
_RETROCEREBELLAR = (0.40, 0.12, 0.22)
_CISTERNA_MAGNA = (0.50, 0.14, 0.12)
_SEPTUM = (0.50, 0.62, 0.55)

_KEEP_OFF_FADE_MM = 6.0
_MOVED_RADII = 2.5


def _yield_to(keep_off: np.ndarray) -> np.ndarray:
    """Weight of a displacement on the coarse grid: 0 in what is to stay, 1 from some mm away on."""
    coarse = keep_off[::COARSE, ::COARSE, ::COARSE]
    if not coarse.any():
        return np.ones(coarse.shape, dtype=np.float32)
    distance = ndimage.distance_transform_edt(~coarse, sampling=COARSE)
    weight: np.ndarray = np.clip((distance - COARSE) / _KEEP_OFF_FADE_MM, 0, 1).astype(np.float32)
    return weight


def _move(
    image: np.ndarray, tissue: np.ndarray, displacement: np.ndarray, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    field = upsample(displacement * _yield_to(keep_off), tissue.shape)
    moved_image, moved_tissue = warp(image, field), warp(tissue, field, nearest=True)
    # The head around the brain is bone, and does not give way; where it would have come in there is fluid.
    outside = moved_tissue < Tissue.CSF
    moved_image[outside], moved_tissue[outside] = fluid_level(image, tissue), Tissue.CSF
    fixed = keep_off | (tissue < Tissue.CSF)
    return np.where(fixed, image, moved_image), np.where(fixed, tissue, moved_tissue)


def _fill(
    image: np.ndarray, tissue: np.ndarray, share: np.ndarray, level: float, kind: Tissue, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fluid in place of what was there, by its share of each voxel; a voxel that is mostly fluid is so in both."""
    fluid = level * (1 + 0.04 * rng.standard_normal(image.shape, dtype=np.float32))
    filled = image * (1 - share) + fluid * share
    return filled.astype(np.float32), np.where(share > 0.5, np.uint8(kind), tissue)


def push_aside(
    image: np.ndarray,
    tissue: np.ndarray,
    rng: np.random.Generator,
    keep_off: np.ndarray,
    centre: np.ndarray,
    radii: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with an ellipsoid of fluid at the brain's surface that has pushed the tissue away.

    What was at the distance ``r`` from the middle, in radii, comes to ``1 + 0.6 r``, up to 2.5 radii, beyond which
    nothing moves: the cortex lies around the fluid, somewhat thinner.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.
        centre: voxel of the middle.
        radii: of the ellipsoid, in mm.

    Returns:
        image and tissue, changed; the fluid is :attr:`Tissue.CSF`.
    """
    inside = (depth_below_hull(tissue) > 0.5) & (tissue >= Tissue.CSF) & ~keep_off
    axes = [np.arange(0, extent, COARSE, dtype=np.float32) - c for extent, c in zip(tissue.shape, centre, strict=True)]
    away = np.stack(np.meshgrid(*axes, indexing="ij"))
    # No cyst is an ellipsoid: its radius differs by direction.
    lumpy = 1 + 0.12 * smooth_noise(rng, away.shape[1:], 8.0)
    distance = np.sqrt(sum((away[axis] / radii[axis]) ** 2 for axis in range(3))) / lumpy
    source = np.maximum(distance - 1, 0) * (_MOVED_RADII / (_MOVED_RADII - 1))
    displacement = (np.minimum(source, distance) / np.maximum(distance, 1e-3) - 1) * away
    level = fluid_level(image, tissue)
    moved_image, moved_tissue = _move(image, tissue, displacement.astype(np.float32), keep_off)
    edge = (1 - upsample(distance, tissue.shape)) * min(radii)
    share = np.clip(edge / 1.2 + 0.5, 0, 1) * inside
    return _fill(moved_image, moved_tissue, share, level, Tissue.CSF, rng)


def _surface_near(tissue: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The voxel of the hull's border that is nearest to a place."""
    hull = coarse_hull(tissue)
    border = np.argwhere(hull & ~ndimage.binary_erosion(hull)) * COARSE
    nearest: np.ndarray = border[((border - place) ** 2).sum(axis=1).argmin()]
    return nearest


def add_arachnoid_cyst(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with an arachnoid cyst at a temporal pole, behind the cerebellum or at the convexity.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image and tissue, changed; the fluid is :attr:`Tissue.CSF`.
    """
    site = rng.choice(3, p=(0.5, 0.25, 0.25))
    if site == 2:
        place = place_in_brain(tissue, (rng.uniform(0, 1), rng.uniform(0.1, 0.95), rng.uniform(0.75, 1.0)))
    else:
        x, y, z = (_TEMPORAL_POLE, _RETROCEREBELLAR)[site]
        place = place_in_brain(tissue, (x if rng.random() < 0.6 else 1 - x, y, z))
    radius = rng.uniform(11, 25)
    radii = radius * rng.uniform(0.75, 1.3, 3)
    return push_aside(image, tissue, rng, keep_off, _surface_near(tissue, place), tuple(radii.tolist()))


def enlarge_cisterna_magna(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with a mega cisterna magna: wide fluid at the midline below and behind the cerebellum.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image and tissue, changed; the fluid is :attr:`Tissue.CSF`.
    """
    centre = _surface_near(tissue, place_in_brain(tissue, _CISTERNA_MAGNA))
    radii = (rng.uniform(14, 28), rng.uniform(7, 14), rng.uniform(10, 20))
    return push_aside(image, tissue, rng, keep_off, centre, radii)


def _septum(tissue: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Where in the sagittal plane ``(W, D)`` the two lateral ventricles lie beside each other."""
    ventricle = tissue == Tissue.VENTRICLE
    sides = [ventricle & (offset < 0), ventricle & (offset >= 0)]
    # Both near the midline and off it: the third and fourth ventricle are narrow.
    bounds = [np.abs(offset) < 6, (np.abs(offset) > 4) & (np.abs(offset) < 12)]
    both = np.logical_and.reduce([(side & bound).any(axis=0) for side in sides for bound in bounds])
    pieces, found = ndimage.label(ndimage.binary_opening(both))
    if not found:
        return both & False
    # Deep fissures may pass for ventricles: the septum is what is nearest to its usual place.
    _, y, z = place_in_brain(tissue, _SEPTUM)
    rows = np.argwhere(pieces > 0)
    nearest = rows[((rows - (y, z)) ** 2).sum(axis=1).argmin()]
    septum: np.ndarray = pieces == pieces[tuple(nearest)]
    return septum


def add_septum_cavity(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with a cavity of the septum: fluid at the midline between the leaves of the septum pellucidum.

    It takes the front part of the septum (cavum septi pellucidi), in a share all of it (and cavum vergae), and is 3 to
    10 mm wide. A head whose lateral ventricles do not meet at the midline is not changed.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image and tissue, changed; the fluid is :attr:`Tissue.VENTRICLE`.
    """
    offset = offset_from_midline(tissue)
    septum = _septum(tissue, offset)
    columns = np.flatnonzero(septum.any(axis=1))
    if len(columns) < 8:
        return image, tissue
    length = rng.uniform(0.35, 0.65) if rng.random() < 0.7 else 1.0
    septum[: int(columns[-1] - length * (columns[-1] - columns[0]))] = False
    wide = ndimage.gaussian_filter(septum.astype(np.float32), 2.0)[None]
    half_mm = np.clip(1.6 * wide - 0.3, 0, 1) * rng.uniform(1.5, 5.0)
    offset_sign = np.sign(offset)
    pushed = -offset_sign * np.minimum(np.abs(offset), half_mm) * np.exp(-np.maximum(np.abs(offset) - half_mm, 0) / 8)
    displacement = np.zeros((3, *(len(range(0, n, COARSE)) for n in tissue.shape)), dtype=np.float32)
    displacement[0] = pushed[::COARSE, ::COARSE, ::COARSE]
    level = fluid_level(image, tissue)
    moved_image, moved_tissue = _move(image, tissue, displacement, keep_off)
    there = ~keep_off & (half_mm > 0.5)
    leaves = np.clip(1.2 - np.abs(np.abs(offset) - half_mm - 0.3), 0, 1) * (0.6 * there)
    moved_image = np.maximum(moved_image, leaves * np.maximum(0.8, moved_image))
    share = np.clip(half_mm - np.abs(offset), 0, 1) * there
    return _fill(moved_image, moved_tissue, share, level, Tissue.VENTRICLE, rng)
