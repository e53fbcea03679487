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
_SCANNER, _TEMPLATE = 1, 3  # codes from 3 on are templates

_nibabels_quaternion = nib.Nifti1Header.get_qform_quaternion


def _quaternion(header: Any) -> np.ndarray:
    """Return nibabel's quaternion, but that of a half turn where b, c and d are rounded up, as NIfTI's own library."""
    vector = np.array([header[f"quatern_{name}"] for name in "bcd"], dtype=np.float64)
    return np.r_[0, vector] if 1 < vector @ vector < _ROUNDED else _nibabels_quaternion(header)


# For all who read NIfTI with nibabel, such as MONAI.
nib.Nifti1Header.get_qform_quaternion = _quaternion


def load_image(file: str | Path) -> SpatialImage:
    """Return an image with an affine to the patient's own millimetres.

    An sform to a template or to another scan may scale. Then the qform, which has the header's voxel sizes, is taken.

    Raises:
        Exception: whatever a damaged file makes nibabel raise.
    """
    image = nib.load(file)
    if isinstance(image, nib.Nifti1Image) and image.header["qform_code"] > 0:
        sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
        to_other = image.header["sform_code"] > _SCANNER and image.header["sform_code"] != image.header["qform_code"]
        if to_other and not np.allclose(image.header.get_zooms()[:3], sizes_mm, rtol=SAME_SIZE):
            image.set_sform(image.get_qform(), int(image.header["qform_code"]))
    return image


def may_scale(image: SpatialImage) -> bool:
    """Return whether an image's sform leads to a template, so that it may scale."""
    return isinstance(image, nib.Nifti1Image) and image.header["sform_code"] >= _TEMPLATE
