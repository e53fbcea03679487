"""What a file's header must say before a voxel of it is read: so that nothing is read that cannot be a head."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from nibabel.spatialimages import SpatialImage

from bundle.errors import InputError, explain

__all__ = ["check_header"]

_FEWEST_SLICES = 8
_SAME_SIZE = 0.02  # readers differ in which of the two they believe
_LEAST_UPRIGHT = 0.5  # volume of the parallelepiped of the axes; a gantry tilted by 30 degrees gives 0.87
_THICKEST_MM = 6.0
_SMALLEST_MM, _LARGEST_MM = 80.0, 512.0
_MOST_VOXELS = 512 * 512 * 512


def _load(file: Path) -> SpatialImage:
    if not file.exists():
        raise InputError(f"{file} does not exist.")
    try:
        if file.stat().st_size == 0:
            raise InputError(f"{file} is empty (0 bytes): copy or export it again.")
        image = nib.load(file)
    except PermissionError as error:
        raise InputError(f"{file} may not be read: give this user the right to.") from error
    except InputError:
        raise
    except Exception as error:  # whatever a damaged header makes a reader raise
        raise InputError(explain(file, error)) from error
    if not isinstance(image, SpatialImage):
        raise InputError(f"{file} is {type(image).__name__}, no volume: NIfTI (.nii, .nii.gz) or MGH is expected.")
    return image


def _check_kind(file: Path, image: SpatialImage) -> None:
    """One volume of plain numbers."""
    axes = tuple(image.shape)
    if len(axes) < 3 or min(axes[:3], default=0) < 2:
        raise InputError(f"{file} is of shape {axes}: one 3D volume is expected.")
    volumes = int(np.prod(axes[3:], dtype=np.int64))
    if volumes != 1:
        raise InputError(f"{file} holds {volumes} volumes ({len(axes)}D): one 3D T1w volume is expected.")
    kind = image.get_data_dtype()
    if kind.fields is not None:
        raise InputError(f"{file} holds colours (RGB): a T1w image of plain numbers is expected.")
    if kind.kind not in "iufb":
        raise InputError(f"{file} holds {kind.name} numbers: a T1w image of plain numbers is expected.")


def _check_place(file: Path, image: SpatialImage) -> None:
    """Voxels of a size, along axes that are known."""
    if isinstance(image, nib.Nifti1Image):
        # As written: on loading nibabel makes sizes of 0 to 1 and of -2 to 2.
        with ImageOpener(file) as stream:
            sizes = type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]
        if not (np.isfinite(sizes).all() and (sizes > 0).all()):
            listed = " x ".join(f"{size:g}" for size in sizes)
            raise InputError(f"{file} has voxels of {listed} mm: its header is damaged, sizes over 0 are expected.")
        if image.header["sform_code"] <= 0 and image.header["qform_code"] <= 0:
            raise InputError(
                f"{file} does not say which way it lies (sform_code and qform_code are 0): left and right could be "
                "mixed up; convert it again from DICOM."
            )
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise InputError(f"{file} has an affine that cannot be inverted: its header is damaged.")
    sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    if abs(np.linalg.det(image.affine[:3, :3] / sizes_mm)) < _LEAST_UPRIGHT:
        raise InputError(f"{file} has axes that are far from right angles: its header is damaged.")
    zooms = np.asarray(image.header.get_zooms()[:3])
    if not np.allclose(zooms, sizes_mm, rtol=_SAME_SIZE):
        said, placed = (" x ".join(f"{size:g}" for size in sizes) for sizes in (zooms, sizes_mm))
        raise InputError(f"{file} has voxels of {said} mm by its pixdim and {placed} mm by its affine: one is damaged.")


def _check_field_of_view(file: Path, image: SpatialImage) -> None:
    """That of a head, in slices that show one."""
    counts = np.asarray(image.shape[:3])
    sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    if counts.min() < _FEWEST_SLICES:
        raise InputError(f"{file} has {counts.min()} slices: a head of at least {_FEWEST_SLICES} is expected.")
    if sizes_mm.max() > _THICKEST_MM:
        raise InputError(f"{file} has slices of {sizes_mm.max():g} mm: {_THICKEST_MM:g} mm or less are expected.")
    extents_mm = counts * sizes_mm
    shown = " x ".join(f"{extent:.0f}" for extent in extents_mm)
    if extents_mm.min() < _SMALLEST_MM:
        raise InputError(f"{file} shows {shown} mm: a whole brain, {_SMALLEST_MM:g} mm each way, is expected.")
    if extents_mm.max() > _LARGEST_MM:
        raise InputError(f"{file} shows {shown} mm: a head alone, at most {_LARGEST_MM:g} mm, is expected.")
    voxels = int(np.prod(counts, dtype=np.int64))
    if voxels > _MOST_VOXELS:
        raise InputError(
            f"{file} has {voxels / 1e6:.0f} million voxels: at most {_MOST_VOXELS / 1e6:.0f} million are read; "
            "resample it to 0.5 mm or more."
        )


def check_header(file: str | Path) -> None:
    """Refuses a file that cannot be a T1w head, by its header; voxels are not read.

    Args:
        file: NIfTI or MGH.

    Raises:
        InputError: when the file is missing, empty or no image; is not one 3D volume of plain numbers; has voxels of no
            size or of two sizes, an affine without inverse or axes far from right angles; does not say which way it
            lies; has fewer than 8 slices, slices thicker than 6 mm, a field of view below 80 or over 512 mm, or more
            than 512 x 512 x 512 voxels.
    """
    path = Path(file)
    image = _load(path)
    for check in (_check_kind, _check_place, _check_field_of_view):
        check(path, image)
