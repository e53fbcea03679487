"""Gauss-Newton registration of a volume to points of a template, to the highest correlation of their intensities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.affines import from_matvec
from nibabel.spaces import vox2out_vox
from scipy import ndimage

__all__ = [
    "AFFINE",
    "CENTRE_MM",
    "SIMILARITY",
    "Interpolation",
    "Target",
    "Volume",
    "normalise",
    "optimize",
    "resample_to_world",
    "sample",
    "trimmed",
]

CENTRE_MM = np.array([0.0, -18.0, 22.0])  # of the template's brain, the centre of rotation and scaling
_RADIUS_MM = 70.0  # of the brain, so that a change of any parameter by 0.01 moves its edge by about 0.7 mm
_ITERATIONS = 50
_BLOCK = 256  # points, few enough that BLAS gives their products to one thread
_FINER = 0.7  # of the spacing, to which voxels are pooled at most

SIMILARITY = np.array(
    [
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, -1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0],
        [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    ],
    dtype=np.float32,
).T
"""Translations, rotations and one scale among the twelve."""
AFFINE = np.eye(12, dtype=np.float32)
"""All twelve parameters of an affine transform, row by row, as the columns of a basis."""


class Volume(NamedTuple):
    """A volume along the axes of the world: right, anterior and superior."""

    voxels: np.ndarray
    origin_mm: np.ndarray
    spacing_mm: float


def _pooled(voxels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return means of neighbouring voxels as long as these stay finer than the spacing, which are quicker to smooth."""
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    factors = np.maximum(_FINER * spacing_mm / sizes_mm, 1).astype(int)
    counts = np.array(voxels.shape) // factors
    cut = voxels[tuple(slice(end) for end in counts * factors)]
    means = cut.reshape(np.stack([counts, factors], axis=1).ravel()).mean(axis=(1, 3, 5), dtype=np.float32)
    return means, affine @ from_matvec(np.diag(factors), (factors - 1) / 2)


def resample_to_world(voxels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> Volume:
    """Return an image smoothed to the spacing and resampled to voxels along the world's axes."""
    shape, grid = vox2out_vox((voxels.shape, affine), [spacing_mm] * 3)
    voxels, affine = _pooled(voxels, affine, spacing_mm)
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    sigmas = np.sqrt(np.maximum((spacing_mm / 2) ** 2 - (sizes_mm / 2) ** 2, 0)) / sizes_mm
    smooth = ndimage.gaussian_filter(voxels, sigmas, mode="nearest")
    resampled = ndimage.affine_transform(smooth, np.linalg.inv(affine) @ grid, output_shape=shape, order=1)
    return Volume(resampled, grid[:3, 3], spacing_mm)


def sample(volume: Volume, points_mm: np.ndarray) -> np.ndarray:
    """Return the volume's values at points ``(N, 3)``, 0 outside."""
    voxels = (points_mm - volume.origin_mm) / volume.spacing_mm
    values: np.ndarray = ndimage.map_coordinates(volume.voxels, voxels.T, order=1)
    return values


class Interpolation:
    """Trilinear values of a volume and their derivatives, from the same eight voxels about each point.

    Args:
        volume: 0 outside.
    """

    def __init__(self, volume: Volume) -> None:
        padded = np.pad(volume.voxels.astype(np.float32), 1)
        self._voxels, self._strides = padded.ravel(), (padded.shape[1] * padded.shape[2], padded.shape[2])
        self._last = np.array(padded.shape, dtype=np.float32)[:, None] - 1.001
        self._to_voxel = from_matvec(np.eye(3) / volume.spacing_mm, 1 - volume.origin_mm / volume.spacing_mm)

    def __call__(self, to_volume: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate at transformed points.

        Args:
            to_volume: from the points to the volume's world, ``(4, 4)``.
            points: ``(4, N)``, homogeneous, float32.

        Returns:
            values ``(N,)`` and their derivatives by the points ``(3, N)``.
        """
        matrix = (self._to_voxel @ to_volume)[:3].astype(np.float32)
        at = np.clip(matrix @ points, 0, self._last)
        whole = at.astype(np.int32)
        x, y, z = at - whole
        plane, row = self._strides
        first = whole[0] * plane + whole[1] * row + whole[2]
        lines, along_z = [], []
        for shift in (0, row, plane, plane + row):
            near = self._voxels.take(first + shift)
            along_z.append(self._voxels.take(first + (shift + 1)) - near)
            lines.append(near + along_z[-1] * z)
        along_y = [lines[1] - lines[0], lines[3] - lines[2]]
        planes = [lines[0] + along_y[0] * y, lines[2] + along_y[1] * y]
        z_planes = [along_z[0] + (along_z[1] - along_z[0]) * y, along_z[2] + (along_z[3] - along_z[2]) * y]
        along_x = planes[1] - planes[0]
        gradient = np.stack(
            [along_x, along_y[0] + (along_y[1] - along_y[0]) * x, z_planes[0] + (z_planes[1] - z_planes[0]) * x]
        )
        return planes[0] + along_x * x, matrix[:, :3].T @ gradient

    def covers(self, to_volume: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return which of the points, as for a call, lie in the volume, ``(N,)``."""
        at = (self._to_voxel @ to_volume)[:3].astype(np.float32) @ points
        covered: np.ndarray = ((at >= 1) & (at <= self._last - 1)).all(axis=0)
        return covered


class Target(NamedTuple):
    """The template's N points that are compared, and its values there with mean 0 and norm 1."""

    points_mm: np.ndarray
    values: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """The points as homogeneous columns, ``(4, N)``, float32."""
        return np.concatenate([self.points_mm, np.ones((len(self.values), 1))], 1).T.astype(np.float32)


def normalise(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return values with mean 0 and norm 1, and the norm that they had."""
    centred = values - values.mean()
    norm = float(np.sqrt(_product(centred, centred))) + 1e-12
    return centred / norm, norm


def _product(one: np.ndarray, other: np.ndarray) -> float:
    """Return the inner product, the same to the last bit with any number of threads, unlike BLAS."""
    return float((one * other).sum())


def _products(rows: np.ndarray) -> np.ndarray:
    """Return the inner products of rows with each other, likewise."""
    blocks = (rows[:, first : first + _BLOCK] for first in range(0, rows.shape[1], _BLOCK))
    return np.sum([block @ block.T for block in blocks], axis=0, dtype=float)


def trimmed(head: Interpolation, target: Target, to_head: np.ndarray, share: float) -> Target:
    """Return the target without the points that the head does not show, and those where it differs most.

    A lesion, or a field of view that ends in the brain, then no longer pulls at the transform.

    Args:
        head: as for :func:`optimize`.
        target: of the template.
        to_head: about the place of the head, ``(4, 4)``.
        share: of the points in the head's field of view that are kept.
    """
    shown, (values, _) = head.covers(to_head, target.points), normalise(head(to_head, target.points)[0])
    difference = np.abs(values - _product(values, target.values) * target.values)
    kept = shown & (difference <= np.quantile(difference[shown], share)) if shown.any() else np.ones_like(shown)
    return Target(target.points_mm[kept], normalise(target.values[kept])[0])


def _moved(to_head: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Return a transform to a head after a motion of the template, ``(3, 4)``."""
    matrix = np.eye(3) + motion[:, :3]
    return to_head @ from_matvec(matrix, _RADIUS_MM * motion[:, 3] + CENTRE_MM - matrix @ CENTRE_MM)


def optimize(
    head: Interpolation, target: Target, to_head: np.ndarray, basis: np.ndarray, tolerance_mm: float
) -> tuple[float, np.ndarray]:
    """Return the highest correlation near a start, and the transform from template to head that gives it.

    Gauss-Newton steps to the highest enhanced correlation coefficient (Evangelidis and Psarakis, IEEE TPAMI 2008); a
    step that lowers the correlation is halved.

    Args:
        head: smoothed and prepared as the target is.
        target: of the template.
        to_head: the start, ``(4, 4)``.
        basis: the parameters that may change among the twelve of an affine transform, ``(12, M)``.
        tolerance_mm: a step that moves the brain's edge by less ends the search.
    """
    wanted = target.values
    points = target.points
    places = np.concatenate([(target.points_mm - CENTRE_MM) / _RADIUS_MM, np.ones((len(wanted), 1))], 1).T
    places = places.astype(np.float32)
    raw, gradient = head(to_head, points)
    values, norm = normalise(raw)
    for _ in range(_ITERATIONS):
        correlation = _product(values, wanted)
        jacobian = basis.T @ (gradient[:, None] * places[None]).reshape(12, -1) * (_RADIUS_MM / norm)
        jacobian -= jacobian.mean(axis=1, keepdims=True)
        products = _products(np.concatenate([jacobian, values[None], wanted[None]]))
        explained = products[:-2, -2]
        solved = np.linalg.lstsq(products[:-2, :-2], products[:-2, -2:], rcond=None)[0]
        brightness = (1 - explained @ solved[:, 0]) / max(correlation - explained @ solved[:, 1], 0.02)
        motion = (basis @ (brightness * solved[:, 1] - solved[:, 0])).reshape(3, 4)
        for step in (1.0, 0.5, 0.25, 0.125):
            tried = _moved(to_head, step * motion)
            raw, tried_gradient = head(tried, points)
            tried_values, tried_norm = normalise(raw)
            if _product(tried_values, wanted) > correlation:
                break
        else:
            break
        to_head, values, norm, gradient = tried, tried_values, tried_norm, tried_gradient
        if step * _RADIUS_MM * np.linalg.norm(motion) < tolerance_mm:
            break
    return _product(values, wanted), to_head
