"""Where the brain is in a head, well enough to place lesions in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import itk
import nilearn.datasets
import numpy as np
from scipy import ndimage

from bundle.errors import InputError
from bundle.transforms import VolumePreprocessing

__all__ = ["TEMPLATE", "brain_mask"]

TEMPLATE = Path(nilearn.datasets.__file__).parent / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
"""The skull-stripped MNI152 T1w template at 1 mm that nilearn ships (ICBM 2009a, Fonov et al., 2009)."""

_STRIPPED_BELOW_ML = 2200
_COARSE_MM = 3
_SKULL_MM = (0.0, 12.0, 20.0)


@cache
def _template() -> np.ndarray:
    template: np.ndarray = VolumePreprocessing(keys="image")({"image": str(TEMPLATE)})["image"][0].numpy()
    return template


def _top(head: np.ndarray) -> int:
    return int(np.flatnonzero((head > 0).any(axis=(0, 1)))[-1])


def _coarse(image: np.ndarray) -> itk.Image:
    smooth = ndimage.gaussian_filter(image, _COARSE_MM / 2)[::_COARSE_MM, ::_COARSE_MM, ::_COARSE_MM]
    coarse = itk.image_from_array(np.ascontiguousarray(smooth.astype(np.float32)))
    coarse.SetSpacing([float(_COARSE_MM)] * 3)
    return coarse


def _optimise(metric: itk.Object, transform: itk.Object, fixed: itk.Image, moving: itk.Image, weights: list) -> float:
    """Improves the transform in place; gives the metric, the lower the better."""
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        LearningRate=1.0, MinimumStepLength=0.01, RelaxationFactor=0.7, NumberOfIterations=200
    )
    optimizer.SetWeights(itk.OptimizerParameters[itk.D](weights))
    optimizer.SetScalesEstimator(itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(Metric=metric))
    optimizer.ReturnBestParametersAndValueOn()
    method = itk.ImageRegistrationMethodv4[type(fixed), type(moving)].New(
        FixedImage=fixed, MovingImage=moving, Metric=metric, Optimizer=optimizer, InitialTransform=transform
    )
    method.SetNumberOfLevels(1)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    method.Update()
    transform.SetParameters(method.GetTransform().GetParameters())
    return float(optimizer.GetValue())


def _register(template: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Affine from template to head voxels (array axes), matrix and offset, by mutual information in the brain."""
    fixed, moving = _coarse(template), _coarse(head)
    # Only the inside counts: the template's outline has no skull around it and would be drawn to the scalp.
    deep = ndimage.binary_erosion(itk.array_view_from_image(fixed) > 0, iterations=2)
    inside = itk.image_from_array(deep.astype(np.uint8))
    inside.SetSpacing(fixed.GetSpacing())
    mask = itk.ImageMaskSpatialObject[3].New(Image=inside)
    mask.Update()
    metric = itk.MattesMutualInformationImageToImageMetricv4[type(fixed), type(moving)].New(NumberOfHistogramBins=32)
    metric.SetFixedImageMask(mask)

    results = []
    for skull_mm in _SKULL_MM:
        transform = itk.AffineTransform[itk.D, 3].New()
        transform.SetIdentity()
        transform.SetCenter([extent / 2 for extent in template.shape[::-1]])
        # Tops of the heads on each other, the template's without its skull. ITK's first axis is the array's last.
        transform.SetTranslation([float(_top(head) - _top(template)) - skull_mm, 0.0, 0.0])
        # The place first, then all twelve parameters: from afar the affine would rather grow to the scalp.
        _optimise(metric, transform, fixed, moving, [0.0] * 9 + [1.0] * 3)
        results.append((_optimise(metric, transform, fixed, moving, [1.0] * 12), transform))
    best = min(results, key=lambda result: result[0])[1]
    matrix, offset = itk.array_from_matrix(best.GetMatrix()), np.asarray(best.GetOffset())
    return matrix[::-1, ::-1], offset[::-1]


def brain_mask(head: np.ndarray) -> np.ndarray:
    """The brain: everything of a skull-stripped head, else the registered brain of the MNI template.

    Args:
        head: ``(H, W, D)`` from :class:`bundle.transforms.VolumePreprocessing` at 1 mm, 0 outside the head.

    Returns:
        boolean mask ``(H, W, D)``.

    Raises:
        InputError: when the registration scales the brain by more than a third along an axis.
    """
    if np.count_nonzero(head) < _STRIPPED_BELOW_ML * 1000:
        stripped: np.ndarray = ndimage.binary_fill_holes(head > 0)
        return stripped
    matrix, offset = _register(_template(), head)
    scales = np.linalg.svd(matrix, compute_uv=False)
    if scales.max() > 4 / 3 or scales.min() < 3 / 4:
        raise InputError(f"The brain was not found: registration to MNI scaled it by {scales.round(2).tolist()}.")
    inverse = np.linalg.inv(matrix)
    brain = ndimage.affine_transform(
        (_template() > 0).astype(np.float32), inverse, -inverse @ offset, output_shape=head.shape, order=1
    )
    return (brain > 0.5) & (head > 0)
