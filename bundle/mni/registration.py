"""Affine registration of a T1w head to the MNI152 template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from operator import itemgetter
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, from_matvec
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from bundle.mni.enhanced_correlation import (
    AFFINE,
    CENTRE_MM,
    SIMILARITY,
    Interpolation,
    Target,
    Volume,
    normalise,
    optimize,
    resample_to_world,
    sample,
    trimmed,
)
from bundle.mni.heads import head_mask
from bundle.mni.template import load_template, on_mni_grid

__all__ = ["RegistrationResult", "find_failure", "load_registration", "register_to_mni"]

_SEARCH_MM, _COARSE_MM, _FINE_MM = 12.0, 6.0, 3.0
_RING_MM = 3.0  # about the template's brain: enough for its edge, too little for the scalp
_LOCAL_MM = 12.0
_DEEP_MM = 6.0

# The search grid, from template to head: rotation vectors 18 degrees apart, the smaller ones first, and for each of
# them the size of the head. Translations are searched exhaustively.
_TURN_STEP_DEG = 18.0
_NEAR_DEG, _FAR_DEG = 32.0, 55.0
_SIZES = (0.85, 1.02)
_CUBE = 19  # edge of the search volume of the template, in voxels of 12 mm
_REFINED, _FINISHED = 24, 3
_SPARSE = 6  # every sixth point is enough to tell good starting places from bad

_PRECISE_MM = 0.05
_FITTING = 0.75  # of the points, in the last step

_SIMILAR_FROM = 0.3
_DETAILED_FROM = 0.29  # between a frequency map of lesions, 0.23, and heads blurred by 12 mm, 0.34 and more
_DETAIL_MM = 6.0
_FOLDS_FROM = 0.15
_FEWEST_VOXELS = 2  # along each axis, of 3 mm
_SCALES = (0.7, 1.4)
_MAX_TURN_DEG = 60.0


class RegistrationResult(NamedTuple):
    """The place of a head in MNI space, and its similarity to the template there."""

    affine: np.ndarray
    """From the image's world to MNI space, in mm, ``(4, 4)``."""
    similarity: float
    """Correlation of the head's and the template's intensities at 3 mm, more than 6 mm inside the brain, in the
    hemisphere where it is higher: a stroke can destroy much of the other. Measured: 0.38 to 0.95 for the 38
    heads of the tests' data; an upside-down head, a leg and empty volumes stay below 0.3."""
    detail: float = 1.0
    """Deviation of the head's intensities from their local mean, as a share of their deviation from the mean. Measured:
    0.52 to 0.82 for the same heads; a probability map of an atlas can be similar to a head, but is smoother."""
    folds: float = 1.0
    """Correlation of both after :func:`_equalised`, in which only folds and other edges count. Measured: 0.45 to 0.75
    for the same heads and 0.2 for the worst of 40 varied simulated ones; noise and inverted contrast stay at 0.1."""
    failure: str = ""
    """Why the registration was not accepted; empty if it was."""
    seconds: float = 0.0
    """How long a caller waited for it."""


def _clipped(volume: Volume) -> Volume:
    """Return a volume clipped to 0 and the head's 99th percentile, so that fat and vessels do not set the range."""
    inside = head_mask(volume.voxels)
    if not inside.any():
        return volume
    return volume._replace(voxels=np.clip(volume.voxels, 0, np.percentile(volume.voxels[inside], 99)))


def _equalised(volume: Volume) -> Volume:
    """Return the deviation from the local mean over the local contrast.

    Bias field, scalp and lesion then count no more than the folds.

    The volume is padded with 0, so that the outside of the field of view has no influence.
    """
    margin = round(2 * _LOCAL_MM / volume.spacing_mm)
    voxels = np.pad(volume.voxels, margin)
    sigma = _LOCAL_MM / volume.spacing_mm
    deviation = voxels - ndimage.gaussian_filter(voxels, sigma)
    contrast = np.sqrt(ndimage.gaussian_filter(deviation**2, sigma))
    # A fraction of the head's brightness, so that noise in the air is not amplified.
    floor = 0.15 * np.median(volume.voxels[volume.voxels > 0.1 * volume.voxels.max()])
    return Volume(deviation / (contrast + floor), volume.origin_mm - margin * volume.spacing_mm, volume.spacing_mm)


class _Fixed(NamedTuple):
    """The template at one spacing: plain and equalised on the same grid, and the N voxels where it is compared."""

    plain: Volume
    equalised: Volume
    inside: np.ndarray
    points_mm: np.ndarray
    depth_mm: np.ndarray


@cache
def _fixed(spacing_mm: float) -> _Fixed:
    plain = _clipped(resample_to_world(*load_template(), spacing_mm))
    equalised = _equalised(plain)
    margin = (equalised.voxels.shape[0] - plain.voxels.shape[0]) // 2
    padded = Volume(np.pad(plain.voxels, margin), equalised.origin_mm, spacing_mm)
    brain = ndimage.binary_fill_holes(padded.voxels > 0.1 * padded.voxels.max())
    inside = ndimage.distance_transform_edt(~brain, sampling=spacing_mm) <= _RING_MM
    depth_mm = ndimage.distance_transform_edt(brain, sampling=spacing_mm)[inside]
    return _Fixed(padded, equalised, inside, np.argwhere(inside) * spacing_mm + padded.origin_mm, depth_mm)


def _target(fixed: _Fixed, volume: Volume, every: int = 1) -> Target:
    return Target(fixed.points_mm[::every], normalise(volume.voxels[fixed.inside][::every])[0])


def _similarity(head: Volume, to_head: np.ndarray) -> float:
    """Return :attr:`RegistrationResult.similarity`, deep in the brain because its outline fits many round objects."""
    fixed = _fixed(head.spacing_mm)
    points, target = fixed.points_mm, fixed.plain.voxels[fixed.inside]
    values = sample(head, apply_affine(to_head, points))
    deep = fixed.depth_mm > _DEEP_MM
    sides = (deep & (points[:, 0] < 0), deep & (points[:, 0] > 0))
    return max(float(normalise(values[side])[0] @ normalise(target[side])[0]) for side in sides)


def _detail(head: Volume) -> float:
    """Return :attr:`RegistrationResult.detail`, without the head's edge, which is sharp in any image."""
    inside = ndimage.binary_erosion(head_mask(head.voxels), iterations=3)
    if not inside.any():
        return 1.0  # too thin to tell
    sigma = _DETAIL_MM / head.spacing_mm
    weights = ndimage.gaussian_filter(inside.astype(np.float32), sigma)[inside]
    local_mean = ndimage.gaussian_filter(head.voxels * inside, sigma)[inside] / weights
    values = head.voxels[inside]
    return float((values - local_mean).std() / (values.std() + 1e-12))


def _folds(equalised: Volume, to_head: np.ndarray) -> float:
    """Return :attr:`RegistrationResult.folds`."""
    fixed = _fixed(equalised.spacing_mm)
    target = _target(fixed, fixed.equalised)
    return float(normalise(sample(equalised, apply_affine(to_head, target.points_mm)))[0] @ target.values)


def _rotations(least_deg: float, most_deg: float) -> list[np.ndarray]:
    steps = range(-int(most_deg / _TURN_STEP_DEG), int(most_deg / _TURN_STEP_DEG) + 1)
    vectors = np.array(list(product(steps, repeat=3))) * _TURN_STEP_DEG
    angles = np.linalg.norm(vectors, axis=1)
    chosen = vectors[(angles >= least_deg) & (angles < most_deg)]
    return list(Rotation.from_rotvec(chosen, degrees=True).as_matrix())


def _blurred(equalised: Volume) -> Volume:
    return equalised._replace(voxels=ndimage.gaussian_filter(equalised.voxels, _SEARCH_MM / 3 / equalised.spacing_mm))


@cache
def _blurred_template() -> Volume:
    return _blurred(_fixed(_COARSE_MM).equalised)


@cache
def _search_template(rotation: tuple[float, ...], size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a turned and scaled template on a cube about its centre, mean 0 and norm 1 inside a mask, and the mask."""
    fixed = _fixed(_COARSE_MM)
    along = (np.arange(_CUBE) - _CUBE // 2) * _SEARCH_MM
    cube = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1)
    points = (cube.reshape(-1, 3) @ np.reshape(rotation, (3, 3))) / size + CENTRE_MM
    mask = sample(fixed.equalised._replace(voxels=fixed.inside.astype(np.float32)), points) > 0.5
    values = sample(_blurred_template(), points)
    values = np.where(mask, values - values[mask].mean(), 0)
    shape = (_CUBE,) * 3
    return (values / np.linalg.norm(values)).astype(np.float32).reshape(shape), mask.astype(np.float32).reshape(shape)


def _initial_transforms(equalised: Volume, rotations: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the affines from template to head with the best translation for each rotation and size, the best first.

    The correlation at every translation is found at once, by Fourier transforms.
    """
    every = round(_SEARCH_MM / equalised.spacing_mm)
    head = _blurred(equalised).voxels[::every, ::every, ::every].astype(np.float32)
    shape = [fft.next_fast_len(extent + _CUBE, real=True) for extent in head.shape]
    values, squares = fft.rfftn(head, shape), fft.rfftn(head**2, shape)
    found = []
    for rotation, size in product(rotations, _SIZES):
        template, mask = _search_template(tuple(rotation.ravel()), size)
        covered = np.conj(fft.rfftn(mask, shape))
        product_sum = fft.irfftn(values * np.conj(fft.rfftn(template, shape)), shape)
        variance = fft.irfftn(squares * covered, shape) - fft.irfftn(values * covered, shape) ** 2 / mask.sum()
        correlation = product_sum / np.sqrt(np.maximum(variance, 0) + 0.01 * variance.max())
        place = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
        before = place >= np.array(shape) - _CUBE // 2  # wrapped around: the cube begins before the head
        centre = equalised.origin_mm + (place - before * np.array(shape) + _CUBE // 2) * _SEARCH_MM
        found.append((correlation.max(), from_matvec(size * rotation, centre - size * rotation @ CENTRE_MM)))
    return [start for _, start in sorted(found, key=itemgetter(0), reverse=True)]


def load_registration() -> None:
    """Prepare what every registration needs of the template, so that the processes of a batch share it."""
    for spacing_mm in (_COARSE_MM, _FINE_MM):
        _fixed(spacing_mm)
    for rotation, size in product(_rotations(0, _NEAR_DEG), _SIZES):
        _search_template(tuple(rotation.ravel()), size)


def _place(equalised: Volume, rotations: Sequence[np.ndarray]) -> np.ndarray:
    """Return the affine from the template to a head; both are equalised, in which brain and scalp differ."""
    head, fixed = Interpolation(equalised), _fixed(_COARSE_MM)
    sparse, whole = (_target(fixed, fixed.equalised, every) for every in (_SPARSE, 1))
    starts = _initial_transforms(equalised, rotations)[:_REFINED]
    refined = [optimize(head, sparse, start, SIMILARITY, 2.0) for start in starts]
    best = sorted(refined, key=itemgetter(0), reverse=True)[:_FINISHED]
    return max((optimize(head, whole, start, AFFINE, 0.2) for _, start in best), key=itemgetter(0))[1]


def _refine(fine: Volume, equalised: Volume, to_head: np.ndarray) -> np.ndarray:
    """Return the affine at fine spacing: the folds find their place first, then the outline and what lies deep.

    Last, without the quarter of the points that fits worst.
    """
    fixed = _fixed(_FINE_MM)
    folds, outline = _target(fixed, fixed.equalised), _target(fixed, fixed.plain)
    _, to_head = optimize(Interpolation(equalised), folds, to_head, AFFINE, _PRECISE_MM)
    head = Interpolation(fine)
    _, to_head = optimize(head, outline, to_head, AFFINE, _PRECISE_MM)
    return optimize(head, trimmed(head, outline, to_head, _FITTING), to_head, AFFINE, _PRECISE_MM)[1]


def register_to_mni(voxels: np.ndarray, affine: np.ndarray) -> RegistrationResult:
    """Return where a T1w head is in MNI space; the identity if it is on an MNI grid and similar to the template there.

    Args:
        voxels: ``(H, W, D)``, whole head or skull-stripped, air at 0 and tissue above it, in any unit.
        affine: voxels to RAS world in mm, ``(4, 4)``; the origin may be wrong, the axes must be roughly right.

    Returns:
        the best registration, which :func:`find_failure` may reject; of similarity 0 for a volume that shows nothing.
    """
    ras = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))  # the same voxels are pooled in any orientation
    fine = _clipped(resample_to_world(np.asarray(ras.dataobj), ras.affine, _FINE_MM))
    if not np.isfinite(fine.voxels).all() or fine.voxels.max() <= 0 or min(fine.voxels.shape) < _FEWEST_VOXELS:
        return RegistrationResult(np.eye(4), 0.0)
    detail, equalised = _detail(fine), _equalised(fine)
    if on_mni_grid(voxels.shape, affine):
        similarity = _similarity(fine, np.eye(4))
        if similarity >= _SIMILAR_FROM:
            return RegistrationResult(np.eye(4), similarity, detail, _folds(equalised, np.eye(4)))
    head_affine = from_matvec(np.eye(3) * _FINE_MM, fine.origin_mm)
    coarse = _equalised(resample_to_world(fine.voxels, head_affine, _COARSE_MM))
    for turns_deg in ((0, _NEAR_DEG), (_NEAR_DEG, _FAR_DEG)):
        to_head = _refine(fine, equalised, _place(coarse, _rotations(*turns_deg)))
        result = RegistrationResult(np.linalg.inv(to_head), _similarity(fine, to_head), detail)
        if result.similarity >= _SIMILAR_FROM:
            break
    return result._replace(folds=_folds(equalised, to_head))


def find_failure(result: RegistrationResult) -> str:
    """Return why a registration must be rejected, or an empty text."""
    if not result.similarity >= _SIMILAR_FROM:  # NaN too
        return f"its similarity to the template is {result.similarity:.2f}, {_SIMILAR_FROM} is needed"
    if result.detail < _DETAILED_FROM:
        return f"it is as smooth as a map: only {result.detail:.0%} of its contrast is finer than {_DETAIL_MM:g} mm"
    if result.folds < _FOLDS_FROM:
        return f"its folds do not lie where the template's are: their similarity is {result.folds:.2f}"
    left, scales, right = np.linalg.svd(result.affine[:3, :3])
    if scales.min() < _SCALES[0] or scales.max() > _SCALES[1]:
        return f"it would be scaled by {', '.join(f'{scale:.2f}' for scale in scales)}"
    turn = np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1)))
    if turn > _MAX_TURN_DEG:
        return f"it would be turned by {turn:.0f} degrees"
    return ""
