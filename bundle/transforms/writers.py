"""Writing results as NIfTI on the grid of their source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelWriter
from nibabel.spatialimages import SpatialImage

from bundle.files import replacing

__all__ = ["SourceGridWriter", "save_on_grid"]


class SourceGridWriter(NibabelWriter):
    """NIfTI writer that keeps the source's header geometry bit for bit and replaces files atomically.

    MONAI's writer keeps the affine but resets the qform and sform codes, and writes in place.
    """

    def set_metadata(self, meta_dict: Mapping | None = None, resample: bool = True, **options: Any) -> None:
        """Set the source; the array must be on its grid, as nothing is resampled."""
        self.source_file = str((meta_dict or {})["filename_or_obj"])

    def write(self, filename: str | os.PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the array.

        Args:
            filename: a name ending in ``.nii`` or ``.nii.gz``.
            verbose: not used.
            kwargs: not used.

        Raises:
            ValueError: if the array is not on the source's grid.
        """
        save_on_grid(np.asarray(self.data_obj, dtype=self.output_dtype), nib.load(self.source_file), filename)


def save_on_grid(data: np.ndarray, source: SpatialImage, path: str | os.PathLike) -> None:
    """Write an array as NIfTI with its source's header geometry, bit for bit, atomically.

    Args:
        data: ``(H, W, D)``.
        source: an image on the same grid.
        path: a name ending in ``.nii`` or ``.nii.gz``; its folder is made.

    Raises:
        ValueError: if the array is not on the source's grid.
    """
    if data.shape != source.shape[:3]:
        raise ValueError(
            f"The result is {data.shape}, its source {source.get_filename()} {source.shape[:3]}: they must match."
        )
    with replacing(Path(path)) as unfinished:
        nib.save(_on_grid(data, source), unfinished)


_GEOMETRY = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def _on_grid(data: np.ndarray, source: SpatialImage) -> nib.Nifti1Image:
    if not isinstance(source, nib.Nifti1Image):
        return nib.Nifti1Image(data, source.affine)
    header = type(source.header)()  # a new one: free texts and extensions of the source can name the patient
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header["pixdim"][:4] = source.header["pixdim"][:4]
    for field in _GEOMETRY:
        header[field] = source.header[field]
    return type(source)(data, None, header)
