"""What a NIfTI header means where it says it twice, or slightly wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

__all__ = ["SAME_SIZE", "load_image", "may_scale"]

SAME_SIZE = 0.02
"""Relative difference of two voxel sizes that are the same."""

_ROUNDED = 1.001  # squared length of a quaternion's vector that rounding has made longer than 1
_MM_OF = {"meter": 1000.0, "micron": 0.001}
_LEAST_MM, _MOST_MM = 0.05, 20.0  # voxel sizes of any scan
_SCANNER, _TEMPLATE = 1, 3  # codes from 3 on are templates

_nibabels_quaternion = nib.Nifti1Header.get_qform_quaternion


def _quaternion(header: Any) -> np.ndarray:
    """Return nibabel's quaternion, but that of a half turn where b, c and d are rounded up, as NIfTI's own library."""
    vector = np.array([header[f"quatern_{name}"] for name in "bcd"], dtype=np.float64)
    return np.r_[0, vector] if 1 < vector @ vector < _ROUNDED else _nibabels_quaternion(header)


# For all who read NIfTI with nibabel, such as MONAI.
nib.Nifti1Header.get_qform_quaternion = _quaternion


def _in_mm(image: SpatialImage) -> SpatialImage:
    """Return an image with three axes, in mm where the header names another unit that its voxel sizes bear out."""
    if image.ndim > 3 and np.prod(image.shape[3:]) == 1:
        image = nib.squeeze_image(image)
    if not isinstance(image, nib.Nifti1Image):
        return image
    factor = _MM_OF.get(image.header.get_xyzt_units()[0], 1.0)
    sizes_mm = factor * np.linalg.norm(image.affine[:3, :3], axis=0)
    if factor == 1 or not (sizes_mm >= _LEAST_MM).all() or not (sizes_mm <= _MOST_MM).all():
        return image
    header = image.header.copy()
    header.set_xyzt_units("mm")
    header.set_zooms([factor * size for size in header.get_zooms()])
    for name in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        header[name] *= factor
    return type(image)(image.dataobj, header.get_best_affine(), header)


def load_image(file: str | Path) -> SpatialImage:
    """Return an image with an affine to the patient's own millimetres.

    An sform to a template or to another scan may scale. Then the qform, which has the header's voxel sizes, is taken.
    Metres and micrometres become millimetres, and further axes of length 1 are left out.

    Raises:
        Exception: whatever a damaged file makes nibabel raise.
    """
    image = _in_mm(nib.load(file))
    if isinstance(image, nib.Nifti1Image) and image.header["qform_code"] > 0:
        sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
        to_other = image.header["sform_code"] > _SCANNER and image.header["sform_code"] != image.header["qform_code"]
        if to_other and not np.allclose(image.header.get_zooms()[:3], sizes_mm, rtol=SAME_SIZE):
            image.set_sform(image.get_qform(), int(image.header["qform_code"]))
    return image


def may_scale(image: SpatialImage) -> bool:
    """Return whether an image's sform leads to a template, so that it may scale."""
    return isinstance(image, nib.Nifti1Image) and image.header["sform_code"] >= _TEMPLATE
