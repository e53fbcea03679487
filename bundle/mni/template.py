"""The MNI152 template and the grid of the ATLAS data set, on which registered heads are resampled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

__all__ = ["TEMPLATE", "atlas_brain", "atlas_grid", "load_template", "on_mni_grid"]

TEMPLATE = Path(__file__).parent / "icbm152" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
"""The skull-stripped MNI152 T1w template at 1 mm (ICBM 2009a, Fonov et al., 2009), as distributed by nilearn."""

_ATLAS_SHAPE = (197, 233, 189)
_ATLAS_ORIGIN_MM = (-98.0, -134.0, -72.0)

# Centres of the first and the last voxel, in mm, of the grids on which MNI152 images are commonly stored.
_MNI_GRIDS = np.array(
    [
        ((-98, -134, -72), (98, 98, 116)),  # ATLAS, 197 x 233 x 189
        ((-91, -126, -72), (90, 91, 109)),  # FSL at 1 mm, 182 x 218 x 182
        ((-90, -126, -72), (90, 90, 108)),  # FSL at 2 mm, 91 x 109 x 91; SPM at 1 mm, 181 x 217 x 181
        ((-96, -132, -78), (96, 96, 114)),  # ICBM 2009c, 193 x 229 x 193
    ]
)
_MNI_GRID_TOLERANCE_MM = 1.5  # Colin27 is stored one millimetre off SPM's grid


def atlas_grid(spacing_mm: float = 1.0) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return the grid of the ATLAS data set, 197 x 233 x 189 voxels of 1 mm in RAS, or one of its field of view.

    Args:
        spacing_mm: voxel size.

    Returns:
        affine ``(4, 4)`` and shape; the field of view has the same centre and is rounded up to whole voxels.
    """
    extent_mm = np.asarray(_ATLAS_SHAPE, dtype=float)
    shape = np.ceil(extent_mm / spacing_mm - 1e-6).astype(int)
    centre_mm = np.asarray(_ATLAS_ORIGIN_MM) + (extent_mm - 1) / 2
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = centre_mm - (shape - 1) / 2 * spacing_mm
    height, width, depth = shape.tolist()
    return affine, (height, width, depth)


@cache
def load_template() -> tuple[np.ndarray, np.ndarray]:
    """Return the template's voxels in RAS orientation, float32, and their affine; both cached: do not change them."""
    image = nib.as_closest_canonical(nib.load(TEMPLATE))
    return image.get_fdata(dtype=np.float32), image.affine


@cache
def atlas_brain(spacing_mm: float = 1.0) -> np.ndarray:
    """Return the template's brain as a boolean mask on :func:`atlas_grid`; it is cached and read-only."""
    affine, shape = atlas_grid(spacing_mm)
    voxels, template_affine = load_template()
    to_template = np.linalg.inv(template_affine) @ affine
    inside = ndimage.affine_transform((voxels > 0).astype(np.float32), to_template, output_shape=shape, order=1) > 0.5
    inside.flags.writeable = False
    return inside


def on_mni_grid(shape: Sequence[int], affine: np.ndarray) -> bool:
    """Return whether axes and field of view are those of a grid on which MNI152 images are commonly stored.

    Args:
        shape: of the image.
        affine: voxels to RAS world in mm, ``(4, 4)``.
    """
    if np.count_nonzero(np.abs(affine[:3, :3]) > 1e-3) != 3:
        return False
    corners = np.sort(apply_affine(affine, [[-0.5] * 3, np.asarray(shape) - 0.5]), axis=0)
    distances_mm = np.abs(_MNI_GRIDS + np.array([[-0.5], [0.5]]) - corners).max(axis=(1, 2))
    return bool(distances_mm.min() <= _MNI_GRID_TOLERANCE_MM)
