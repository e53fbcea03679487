"""How bright a head's white matter is: by the histogram, and by where the template has white matter."""

from __future__ import annotations

from functools import cache

import nibabel as nib
import numpy as np
from scipy import ndimage

from bundle.mni import TEMPLATE, atlas_grid

__all__ = ["white_matter_levels", "white_matter_mode"]

# Quantile of the template's intensities. What is brighter is, 2 mm inside, to 92 % where the template's map of white
# matter has 0.9 and more.
_WHITE_ABOVE = 0.75

# Histogram and template agree in heads whose histogram has a peak of white matter.
_AGREE = 0.07
_BIAS_MM = 20.0


def white_matter_mode(image: np.ndarray, brain: np.ndarray) -> float:
    """The most frequent intensity in the brighter half of the brain.

    Args:
        image: T1w intensities ``(H, W, D)``.
        brain: boolean mask of the same shape.
    """
    values = image[brain]
    counts, edges = np.histogram(values, bins=64, range=tuple(np.percentile(values, (50, 99.5))))
    peak = int(ndimage.gaussian_filter1d(counts.astype(float), 2).argmax())
    return float(edges[peak] + edges[peak + 1]) / 2


@cache
def _template_white_matter() -> np.ndarray:
    """Where white matter is in most heads placed in MNI space by an affine map, boolean, on the ATLAS grid."""
    affine, shape = atlas_grid(1.0)
    template = nib.as_closest_canonical(nib.load(TEMPLATE))
    to_template = np.linalg.inv(template.affine) @ affine
    image = ndimage.affine_transform(template.get_fdata(dtype=np.float32), to_template, output_shape=shape, order=1)
    white = image > np.quantile(image[image > 0], _WHITE_ABOVE)
    deep: np.ndarray = ndimage.binary_erosion(white, iterations=2)
    return deep


def white_matter_levels(image: np.ndarray, brain: np.ndarray) -> tuple[float, np.ndarray | float]:
    """Return the intensity of white matter as a whole, and what it is about each voxel, as a share of that.

    The first is :func:`white_matter_mode`, and the second 1, where that is about the median where the template has
    white matter. Elsewhere a strong bias field has levelled the peak of the histogram: then both are of where the
    template has white matter.

    Args:
        image: T1w intensities ``(197, 233, 189)`` in MNI space on the ATLAS grid.
        brain: boolean mask of the same shape.
    """
    mode = white_matter_mode(image, brain)
    white = _template_white_matter() & brain
    median = float(np.median(image[white]))
    if abs(mode / median - 1) < _AGREE:
        return mode, 1.0
    # Of every fourth voxel: the field is smooth. Far from all white matter it is the median.
    weight, weighted = (
        ndimage.gaussian_filter(a[::4, ::4, ::4].astype(np.float32), _BIAS_MM / 4) for a in (white, image * white)
    )
    field = (weighted + 0.01 * median) / (weight + 0.01) / median
    zoom = [new / old for new, old in zip(image.shape, field.shape, strict=True)]
    local: np.ndarray = ndimage.zoom(field, zoom, order=1, grid_mode=True, mode="nearest")
    return median, local
