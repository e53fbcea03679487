"""A head shape of its own for each case, and the placement error that a registration leaves."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bundle.data.simulate.fields import upsample, warp_pair

__all__ = ["misplace", "own_shape"]

# What differs between heads after an affine registration of the whole: its optimum is that of no single part.
_SIZE_SD = 0.03
_SHEAR_SD = 0.02
_TURN_SD_DEG = 1.5

# Root mean square of the deformation, and the standard deviation in mm of the kernel that smooths it.
_DEFORMATION_MM = (3.0, 6.0)
_SMOOTHNESS_MM = 20.0
_LATTICE_MM = 8.0
# The largest row sum of absolute derivatives of the displacement. Below 1, identity plus derivatives is strictly
# diagonally dominant, so that the Jacobian determinant is positive everywhere.
_STEEPEST = 0.9

# What a registration by AffineToMNI leaves, as root mean squares along or about each axis over three distorted copies
# each of six scans against the registration of the undistorted scan: python -m benchmarks.placement HEADS --scans 6
PLACEMENT_SHIFT_SD_MM = 0.07
PLACEMENT_TURN_SD_DEG = 0.13
PLACEMENT_SIZE_SD = 0.0028


def _steepest(coarse: np.ndarray, spacing_mm: list[float]) -> float:
    """The largest row sum of absolute derivatives that trilinear interpolation of a displacement can have."""
    rows = []
    for component in coarse:
        row = np.zeros([extent - 1 for extent in component.shape])
        for axis in range(3):
            slopes = np.abs(np.diff(component, axis=axis)) / spacing_mm[axis]
            for other in {0, 1, 2} - {axis}:  # in a cell, a mean of its four edges
                slopes = np.maximum(
                    slopes.take(range(1, slopes.shape[other]), other), slopes.take(range(row.shape[other]), other)
                )
            row += slopes
        rows.append(row.max())
    return float(max(rows))


def _deformation(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A smooth random displacement ``(3, H, W, D)`` in mm whose Jacobian determinant is positive everywhere."""
    lattice = tuple(int(np.ceil(extent / _LATTICE_MM)) + 1 for extent in shape)
    noise = rng.standard_normal((3, *lattice))
    sigma = _SMOOTHNESS_MM / _LATTICE_MM
    coarse = ndimage.gaussian_filter(noise, (0, sigma, sigma, sigma), mode="reflect")
    coarse *= rng.uniform(*_DEFORMATION_MM) / np.sqrt((coarse**2).sum(axis=0).mean())
    spacing_mm = [(extent - 1) / (points - 1) for extent, points in zip(shape, lattice, strict=True)]
    return upsample(coarse * min(1.0, _STEEPEST / _steepest(coarse, spacing_mm)), shape)


def _affine_displacement(matrix: np.ndarray, shift: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The displacement ``(3, H, W, D)`` of an affine map about the middle of the volume."""
    axes = [np.arange(extent, dtype=np.float32) - (extent - 1) / 2 for extent in shape]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    change = (matrix - np.eye(3)).astype(np.float32)
    rows = [sum(change[row, axis] * grid[axis] for axis in range(3)) + np.float32(shift[row]) for row in range(3)]
    return np.stack([np.broadcast_to(row, shape) for row in rows])


def own_shape(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the head in another shape: an affine map (size, shear, turn) after a smooth large deformation.

    Both are one displacement, so that image and tissues are resampled once. It maps no two points on one.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, the brain's centre in the middle, as on the ATLAS grid.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.

    Returns:
        image and tissue, changed.
    """
    matrix = Rotation.from_euler("xyz", rng.normal(0, _TURN_SD_DEG, 3), degrees=True).as_matrix()
    shear = np.eye(3) + np.triu(rng.normal(0, _SHEAR_SD, (3, 3)), 1)
    matrix = matrix @ shear @ np.diag(np.exp(rng.normal(0, _SIZE_SD, 3)))
    deformation = _deformation(image.shape, rng)
    # From x to matrix @ (x + deformation(x)), about the middle.
    displacement = _affine_displacement(matrix, np.zeros(3), image.shape)
    displacement += np.tensordot(matrix.astype(np.float32), deformation, axes=1)
    return warp_pair(image, tissue, displacement)


def misplace(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the head as a registration places it, somewhat turned, shifted and scaled; the error is as measured.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, the brain's centre in the middle, as on the ATLAS grid.
        label: lesion of each voxel, of the same shape.
        rng: source of randomness.

    Returns:
        image (trilinear) and label (nearest voxel), resampled once.
    """
    matrix = Rotation.from_euler("xyz", rng.normal(0, PLACEMENT_TURN_SD_DEG, 3), degrees=True).as_matrix()
    matrix = matrix @ np.diag(np.exp(rng.normal(0, PLACEMENT_SIZE_SD, 3)))
    shift = rng.normal(0, PLACEMENT_SHIFT_SD_MM, 3)
    return warp_pair(image, label, _affine_displacement(matrix, shift, image.shape))
