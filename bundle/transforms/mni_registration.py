"""Affine registration of a T1w head to the MNI152 template."""

from __future__ import annotations

from functools import cache
from itertools import product
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from nibabel.spaces import vox2out_vox
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bundle.transforms.atlas import load_template, on_mni_grid
from bundle.transforms.intensity import head_mask
from bundle.transforms.spatial import brain_position

__all__ = ["RegistrationResult", "find_failure", "load_registration", "register_to_mni"]

_SEARCH_MM, _FINE_MM = 6.0, 3.0
_RING_MM = 3.0  # about the template's brain: enough for its edge, too little for the scalp
_LOCAL_MM = 12.0
_DEEP_MM = 6.0
_CENTRE_MM = np.array([0.0, -18.0, 22.0])  # of the template's brain, the centre of rotation and scaling

# The search grid, from template to head: rotations about the axes to the right, to the front and to the top, and for
# each of them the distance of the brain from the top of the head, its shift to the front, and its size.
_TURNS_DEG = ((-30, -15, 0, 15, 30), (-20, 0, 20), (-20, 0, 20))
_DROPS_MM = (0, 6, 12, 18, 24)
_SLIDES_MM = (-24, -12, 0, 12, 24)
_SIZES = (0.82, 0.93, 1.05)
_INITIAL_TRANSFORMS = 5

_SIMILAR_FROM = 0.3
_SCALES = (0.7, 1.4)
_MAX_TURN_DEG = 60.0


Metric = Literal["correlation", "mutual_information"]


class RegistrationResult(NamedTuple):
    """The place of a head in MNI space, and its similarity to the template there."""

    affine: np.ndarray
    """From the image's world to MNI space, in mm, ``(4, 4)``."""
    similarity: float
    """Correlation of the head's and the template's intensities at 3 mm, more than 6 mm inside the brain, in the
    hemisphere where it is higher: a stroke can destroy much of the other. Measured: 0.46 to 0.95 for well registered
    heads, at most 0.28 for misplaced, upside-down or inverted ones and for other objects."""
    failure: str = ""
    """Why the registration was not accepted; empty if it was."""
    seconds: float = 0.0
    """Duration of the registration."""


class _Volume(NamedTuple):
    """A volume whose axes are those of the world: right, anterior and superior."""

    voxels: np.ndarray
    origin_mm: np.ndarray
    spacing_mm: float


def _resampled_to_world(voxels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> _Volume:
    """Return an image smoothed to the spacing and resampled to voxels along the world's axes."""
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    sigmas = np.sqrt(np.maximum((spacing_mm / 2) ** 2 - (sizes_mm / 2) ** 2, 0)) / sizes_mm
    smooth = ndimage.gaussian_filter(voxels.astype(np.float32), sigmas, mode="nearest")
    shape, grid = vox2out_vox((voxels.shape, affine), [spacing_mm] * 3)
    resampled = ndimage.affine_transform(smooth, np.linalg.inv(affine) @ grid, output_shape=shape, order=1)
    return _Volume(resampled, grid[:3, 3], spacing_mm)


def _clipped(volume: _Volume) -> _Volume:
    """Return a volume clipped to 0 and the head's 99th percentile, so that fat and vessels do not set the range."""
    inside = head_mask(volume.voxels)
    if not inside.any():
        return volume
    return volume._replace(voxels=np.clip(volume.voxels, 0, np.percentile(volume.voxels[inside], 99)))


def _equalised(volume: _Volume) -> _Volume:
    """Return the deviation from the local mean over the local contrast: bias field, scalp and lesion weigh like folds.

    The volume is padded with 0, so that the outside of the field of view has no influence.
    """
    margin = round(2 * _LOCAL_MM / volume.spacing_mm)
    voxels = np.pad(volume.voxels, margin)
    sigma = _LOCAL_MM / volume.spacing_mm
    deviation = voxels - ndimage.gaussian_filter(voxels, sigma)
    contrast = np.sqrt(ndimage.gaussian_filter(deviation**2, sigma))
    # A fraction of the head's brightness, so that noise in the air is not amplified.
    floor = 0.15 * np.median(volume.voxels[volume.voxels > 0.1 * volume.voxels.max()])
    return _Volume(deviation / (contrast + floor), volume.origin_mm - margin * volume.spacing_mm, volume.spacing_mm)


class _Fixed(NamedTuple):
    """The template at one spacing: plain and equalised on the same grid, and the N voxels where it is compared."""

    plain: _Volume
    equalised: _Volume
    inside: np.ndarray
    points_mm: np.ndarray
    depth_mm: np.ndarray


@cache
def _fixed(spacing_mm: float) -> _Fixed:
    plain = _clipped(_resampled_to_world(*load_template(), spacing_mm))
    equalised = _equalised(plain)
    margin = (equalised.voxels.shape[0] - plain.voxels.shape[0]) // 2
    padded = _Volume(np.pad(plain.voxels, margin), equalised.origin_mm, spacing_mm)
    brain = ndimage.binary_fill_holes(padded.voxels > 0.1 * padded.voxels.max())
    inside = ndimage.distance_transform_edt(~brain, sampling=spacing_mm) <= _RING_MM
    depth_mm = ndimage.distance_transform_edt(brain, sampling=spacing_mm)[inside]
    return _Fixed(padded, equalised, inside, np.argwhere(inside) * spacing_mm + padded.origin_mm, depth_mm)


def _values(volume: _Volume, points_mm: np.ndarray) -> np.ndarray:
    """Return the volume's values at points ``(N, 3)``, 0 outside."""
    voxels = (points_mm - volume.origin_mm) / volume.spacing_mm
    values: np.ndarray = ndimage.map_coordinates(volume.voxels, voxels.T, order=1)
    return values


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second) + 1e-12))


def _equalised_correlation(equalised: _Volume, to_head: np.ndarray) -> float:
    """Return the correlation of head and template, both equalised, in and about the template's brain."""
    fixed = _fixed(equalised.spacing_mm)
    values = _values(equalised, apply_affine(to_head, fixed.points_mm))
    return _correlation(values, fixed.equalised.voxels[fixed.inside])


def _similarity(head: _Volume, to_head: np.ndarray) -> float:
    """Return :attr:`RegistrationResult.similarity`, deep in the brain because its outline fits many round objects."""
    fixed = _fixed(head.spacing_mm)
    points, target = fixed.points_mm, fixed.plain.voxels[fixed.inside]
    values = _values(head, apply_affine(to_head, points))
    deep = fixed.depth_mm > _DEEP_MM
    sides = (deep & (points[:, 0] < 0), deep & (points[:, 0] > 0))
    return max(_correlation(values[side], target[side]) for side in sides)


def _top_centre(volume: _Volume) -> np.ndarray:
    """Return x and y of the middle of the brain's outline, and z of the top of the head, in mm."""
    (x, y), top = brain_position(head_mask(volume.voxels), volume.spacing_mm)
    return volume.origin_mm + np.array([x, y, top]) * volume.spacing_mm


def _initial_transforms(head: _Volume, equalised: _Volume) -> list[np.ndarray]:
    """Return the initial affines from template to head: the best of the search grid, of different rotations."""
    fixed = _fixed(_SEARCH_MM)
    points, target = fixed.points_mm[::4], fixed.equalised.voxels[fixed.inside][::4]
    x, y, top = _top_centre(head)
    best = []
    for turns in product(*_TURNS_DEG):
        tried = []
        for drop, slide, size in product(_DROPS_MM, _SLIDES_MM, _SIZES):
            start = np.eye(4)
            start[:3, :3] = size * Rotation.from_euler("xyz", turns, degrees=True).as_matrix()
            start[:3, 3] = -start[:3, :3] @ _CENTRE_MM
            highest = (points @ start[2, :3]).max() + start[2, 3] - _RING_MM
            start[:3, 3] += (x, y + slide, top - highest - drop)
            tried.append((_correlation(_values(equalised, apply_affine(start, points)), target), start))
        best.append(max(tried, key=itemgetter(0)))
    return [start for _, start in sorted(best, key=itemgetter(0), reverse=True)[:_INITIAL_TRANSFORMS]]


def load_registration() -> None:
    """Load what a registration needs, above all 700 MB of ITK that are otherwise loaded at the first use."""
    import itk  # here, as nothing else needs it

    real = itk.Image[itk.F, 3]
    itk.ImageRegistrationMethodv4[real, real]
    _itk_metric("correlation")
    for spacing_mm in (_SEARCH_MM, _FINE_MM):
        _fixed(spacing_mm)


def _itk_metric(name: Metric) -> Any:
    import itk

    real = itk.Image[itk.F, 3]
    if name == "correlation":
        return itk.CorrelationImageToImageMetricv4[real, real].New()
    return itk.MattesMutualInformationImageToImageMetricv4[real, real].New(NumberOfHistogramBins=32)


def _itk_image(volume: _Volume) -> Any:
    """Return ITK's image of a volume; ITK's first axis is the last of a numpy array."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(volume.voxels.T.astype(np.float32)))
    image.SetOrigin(volume.origin_mm.tolist())
    image.SetSpacing([volume.spacing_mm] * 3)
    return image


def _optimize(name: Metric, fixed: _Volume, moving: _Volume, inside: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the affine template to head at the optimum of a metric that is nearest to a start."""
    import itk

    metric, fixed_image, moving_image = _itk_metric(name), _itk_image(fixed), _itk_image(moving)
    mask_image = itk.image_from_array(np.ascontiguousarray(inside.T.astype(np.uint8)))
    mask_image.CopyInformation(fixed_image)
    mask = itk.ImageMaskSpatialObject[3].New(Image=mask_image)
    mask.Update()
    metric.SetFixedImageMask(mask)
    # One thread: the order of sums, and with it the last bits of the result, depend on how many there are.
    metric.SetMaximumNumberOfWorkUnits(1)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        LearningRate=1.0, MinimumStepLength=0.01, RelaxationFactor=0.7, NumberOfIterations=100
    )
    optimizer.SetNumberOfWorkUnits(1)
    optimizer.SetScalesEstimator(itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(Metric=metric))
    optimizer.ReturnBestParametersAndValueOn()
    transform = itk.AffineTransform[itk.D, 3].New()
    transform.SetCenter(_CENTRE_MM.tolist())
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(start[:3, :3])))
    transform.SetTranslation((start[:3, 3] - _CENTRE_MM + start[:3, :3] @ _CENTRE_MM).tolist())
    method = itk.ImageRegistrationMethodv4[type(fixed_image), type(moving_image)].New(
        FixedImage=fixed_image, MovingImage=moving_image, Metric=metric, Optimizer=optimizer, InitialTransform=transform
    )
    method.SetNumberOfLevels(1)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    method.Update()
    transform.SetParameters(method.GetTransform().GetParameters())
    end = np.eye(4)
    end[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
    end[:3, 3] = np.asarray(transform.GetOffset())
    return end


def _register(coarse: _Volume, fine: _Volume) -> np.ndarray:
    """Return the affine from template to head in mm, first by correlation, then refined by mutual information."""
    equalised, fixed = _equalised(coarse), _fixed(coarse.spacing_mm)
    # Correlation of equalised images tells brain from scalp; mutual information alone can stretch the brain over the
    # whole head.
    placed = [
        _optimize("correlation", fixed.equalised, equalised, fixed.inside, start)
        for start in _initial_transforms(coarse, equalised)
    ]
    best = max(placed, key=lambda to_head: _equalised_correlation(equalised, to_head))
    fixed = _fixed(fine.spacing_mm)
    return _optimize("mutual_information", fixed.plain, fine, fixed.inside, best)


def register_to_mni(voxels: np.ndarray, affine: np.ndarray) -> RegistrationResult:
    """Return where a T1w head is in MNI space; the identity if its header and similarity say it is there already.

    Args:
        voxels: ``(H, W, D)``, whole head or skull-stripped, any intensities.
        affine: voxels to RAS world in mm, ``(4, 4)``; the origin may be wrong, the axes must be roughly right.

    Returns:
        the best registration, which :func:`find_failure` may reject.
    """
    fine = _clipped(_resampled_to_world(voxels, affine, _FINE_MM))
    if on_mni_grid(voxels.shape, affine):
        similarity = _similarity(fine, np.eye(4))
        if similarity >= _SIMILAR_FROM:
            return RegistrationResult(np.eye(4), similarity)
    to_head = _register(_clipped(_resampled_to_world(voxels, affine, _SEARCH_MM)), fine)
    return RegistrationResult(np.linalg.inv(to_head), _similarity(fine, to_head))


def find_failure(result: RegistrationResult) -> str:
    """Return why a registration must be rejected, or an empty text."""
    if result.similarity < _SIMILAR_FROM:
        return f"its similarity to the template is {result.similarity:.2f}, {_SIMILAR_FROM} is needed"
    left, scales, right = np.linalg.svd(result.affine[:3, :3])
    if scales.min() < _SCALES[0] or scales.max() > _SCALES[1]:
        return f"it would be scaled by {', '.join(f'{scale:.2f}' for scale in scales)}"
    turn = np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1)))
    if turn > _MAX_TURN_DEG:
        return f"it would be turned by {turn:.0f} degrees"
    return ""
