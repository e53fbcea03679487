"""The checked label of a case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.data.cohorts.cases import Case
from bundle.errors import InputError, explain
from bundle.files import replacing
from bundle.headers import check_same_grid, open_image
from bundle.lesions import lesion_voxels

__all__ = ["prepare_label"]


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Raise any error of a damaged file as a sentence."""
    try:
        yield
    except Exception as error:
        raise InputError(explain(file, error)) from error


def _open(file: Path) -> Any:
    """Return a 3D volume after a check that its file is complete; its voxels are not kept."""
    with _explained(file):
        volume = open_image(file)
        if not file.name.lower().endswith((".gz", ".mgz")):
            volume.dataobj.get_unscaled()  # memory-mapped, not read; fails if the file is too short
    return volume


def _read_mask(file: Path, image: Any, image_file: Path) -> np.ndarray:
    """Return the stored voxels of a mask, ``(H, W, D)``, after a check that it is on the grid of its image."""
    mask = _open(file)
    check_same_grid(file, mask, image_file, image)
    with _explained(file):
        return np.asanyarray(mask.dataobj).reshape(image.shape[:3])


def prepare_label(case: Case, folder: str | Path) -> tuple[Path, float]:
    """Combine the masks of a case into one label, and check it and the image.

    Lesion is what :func:`bundle.lesions.lesion_voxels` finds in any mask. A single mask of 0 and 1 is the label;
    otherwise ``folder/<name>.nii.gz`` is written, uint8, 0 and 1, with the image's affine.

    Args:
        case: with one mask or more.
        folder: folder of new labels.

    Returns:
        The label's file and the volume of the lesion in mL.

    Raises:
        InputError: when a file is damaged or not a 3D volume, a mask has values between whole numbers or is not on the
            grid of the image, or no voxel is lesion.
    """
    image = _open(case.image)
    union = np.zeros(image.shape[:3], dtype=bool)
    for file in case.masks:
        voxels = _read_mask(file, image, case.image)
        union |= lesion_voxels(voxels, file)
    if not union.any():
        raise InputError(f"{' and '.join(map(str, case.masks))} has no lesion voxel: some above 0 are expected.")
    volume_ml = float(np.count_nonzero(union) * abs(np.linalg.det(image.affine[:3, :3])) / 1000)
    if len(case.masks) == 1 and np.array_equal(voxels, union):
        return case.masks[0], volume_ml
    label = Path(folder).resolve() / f"{case.name}.nii.gz"
    with replacing(label) as unfinished:
        nib.save(nib.Nifti1Image(union.astype(np.uint8), image.affine), unfinished)
    return label, volume_ml
