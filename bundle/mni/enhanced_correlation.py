"""Gauss-Newton registration of a volume to points of a template, to the highest correlation of their intensities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.spaces import vox2out_vox
from scipy import ndimage

__all__ = [
    "AFFINE",
    "CENTRE_MM",
    "SIMILARITY",
    "DifferentiableVolume",
    "Target",
    "Volume",
    "differentiate",
    "normalise",
    "optimize",
    "resample_to_world",
    "sample",
]

CENTRE_MM = np.array([0.0, -18.0, 22.0])  # of the template's brain, the centre of rotation and scaling
_RADIUS_MM = 70.0  # of the brain, so that a change of any parameter by 0.01 moves its edge by about 0.7 mm
_ITERATIONS = 25

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
    """A volume whose axes are those of the world: right, anterior and superior."""

    voxels: np.ndarray
    origin_mm: np.ndarray
    spacing_mm: float


def resample_to_world(voxels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> Volume:
    """Return an image smoothed to the spacing and resampled to voxels along the world's axes."""
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    sigmas = np.sqrt(np.maximum((spacing_mm / 2) ** 2 - (sizes_mm / 2) ** 2, 0)) / sizes_mm
    smooth = ndimage.gaussian_filter(voxels.astype(np.float32), sigmas, mode="nearest")
    shape, grid = vox2out_vox((voxels.shape, affine), [spacing_mm] * 3)
    resampled = ndimage.affine_transform(smooth, np.linalg.inv(affine) @ grid, output_shape=shape, order=1)
    return Volume(resampled, grid[:3, 3], spacing_mm)


def sample(volume: Volume, points_mm: np.ndarray) -> np.ndarray:
    """Return the volume's values at points ``(N, 3)``, 0 outside."""
    voxels = (points_mm - volume.origin_mm) / volume.spacing_mm
    values: np.ndarray = ndimage.map_coordinates(volume.voxels, voxels.T, order=1)
    return values


class DifferentiableVolume(NamedTuple):
    """A volume and its derivatives along the world's axes, per mm."""

    volume: Volume
    gradient: tuple[Volume, Volume, Volume]


def differentiate(volume: Volume) -> DifferentiableVolume:
    """Return a volume with its derivatives."""
    right, front, top = (volume._replace(voxels=along) for along in np.gradient(volume.voxels, volume.spacing_mm))
    return DifferentiableVolume(volume, (right, front, top))


class Target(NamedTuple):
    """The template's N points that are compared, and its values there with mean 0 and norm 1."""

    points_mm: np.ndarray
    values: np.ndarray


def normalise(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return values with mean 0 and norm 1, and the norm that they had."""
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred)) + 1e-12
    return centred / norm, norm


def optimize(
    head: DifferentiableVolume, target: Target, to_head: np.ndarray, basis: np.ndarray, tolerance_mm: float
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
    points, wanted = target
    places = np.concatenate([(points - CENTRE_MM) / _RADIUS_MM, np.ones((len(points), 1))], 1)
    values, norm = normalise(sample(head.volume, apply_affine(to_head, points)))
    for _ in range(_ITERATIONS):
        correlation = values @ wanted
        at = apply_affine(to_head, points)
        gradient = np.stack([sample(along, at) for along in head.gradient], axis=1) @ to_head[:3, :3]
        jacobian = (gradient[:, :, None] * places[:, None]).reshape(len(points), 12) * (_RADIUS_MM / norm) @ basis
        jacobian -= jacobian.mean(axis=0)
        explained, asked = jacobian.T @ values, jacobian.T @ wanted
        solved = np.linalg.lstsq(jacobian.T @ jacobian, np.stack([explained, asked], axis=1))[0]
        brightness = (1 - explained @ solved[:, 0]) / max(correlation - explained @ solved[:, 1], 0.02)
        motion = (basis @ (brightness * solved[:, 1] - solved[:, 0])).reshape(3, 4)
        for step in (1.0, 0.5, 0.25, 0.125):
            matrix = np.eye(3) + step * motion[:, :3]
            shift_mm = step * _RADIUS_MM * motion[:, 3] + CENTRE_MM - matrix @ CENTRE_MM
            tried = to_head @ from_matvec(matrix, shift_mm)
            tried_values, tried_norm = normalise(sample(head.volume, apply_affine(tried, points)))
            if tried_values @ wanted > correlation:
                break
        else:
            break
        to_head, values, norm = tried, tried_values, tried_norm
        if step * _RADIUS_MM * np.linalg.norm(motion) < tolerance_mm:
            break
    return float(values @ wanted), to_head
