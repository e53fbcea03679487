"""Checks of an image's header, the same for every kind of input; NumPy and nibabel are all they need."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.openers import ImageOpener
from nibabel.spatialimages import SpatialImage

from bundle.errors import InputError, check_gzip, explain
from bundle.nifti import SAME_SIZE, load_image, may_scale

__all__ = [
    "check_header",
    "check_invertible",
    "check_one_volume",
    "check_same_grid",
    "check_slice_count",
    "open_image",
    "require",
]

_FEWEST_SLICES = 8
_LEAST_UPRIGHT = 0.5  # volume of the parallelepiped of the axes; a gantry tilted by 30 degrees gives 0.87
_THICKEST_MM = 6.0
_SMALLEST_MM, _LARGEST_MM = 80.0, 512.0
_MOST_VOXELS = 512 * 512 * 512
_SAME_PLACE_MM = 1e-2


def require(fine: bool | np.bool, sentence: str) -> None:
    """Raise an InputError with a sentence unless something is as it must be."""
    if not fine:
        raise InputError(sentence)


def check_one_volume(file: str | Path, shape: Sequence[int]) -> None:
    """Check that an image is one volume with three axes; further axes must have length 1.

    Args:
        file: for the message.
        shape: of the image, spatial axes first.

    Raises:
        InputError: if it has fewer axes or several volumes.
    """
    axes = tuple(shape)
    require(len(axes) >= 3 and min(axes[:3]) >= 2, f"{file} has shape {axes}: one 3D volume is expected.")
    volumes = int(np.prod(axes[3:], dtype=np.int64))
    require(volumes == 1, f"{file} holds {volumes} volumes ({len(axes)}D): one 3D volume is expected.")


def check_slice_count(file: object, count: int) -> None:
    """Check that an image, or a DICOM series, has enough slices for a head.

    Raises:
        InputError: if there are fewer than 8.
    """
    require(count >= _FEWEST_SLICES, f"{file} has {count} slices: a head of at least {_FEWEST_SLICES} is expected.")


def check_invertible(file: str | Path, affine: np.ndarray) -> None:
    """Check that an affine can be inverted.

    Raises:
        InputError: if it cannot, or has NaN or infinite values.
    """
    invertible = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-9
    require(invertible, f"{file} has an affine that cannot be inverted: its header is damaged.")


def check_same_grid(label_file: str | Path, label: SpatialImage, image_file: str | Path, image: SpatialImage) -> None:
    """Check that a label is on the grid of its image.

    Raises:
        InputError: if their shapes differ, or the places of their corners by more than 0.01 mm.
    """
    name, own, other = Path(image_file).name, label.shape[:3], image.shape[:3]
    distance_mm = np.inf
    if own == other:
        corners = np.array(list(product(*((0, extent - 1) for extent in own))))
        places = (apply_affine(each.affine, corners) for each in (label, image))
        distance_mm = float(np.linalg.norm(np.subtract(*places), axis=1).max())
        if distance_mm <= _SAME_PLACE_MM:
            return
    stored, expected = ("".join(map(str, nib.aff2axcodes(each.affine))) for each in (label, image))
    require(
        stored == expected,
        f"{label_file} is stored as {stored} and its image {name} as {expected}: reorient one like the other, for "
        "example with nibabel's as_closest_canonical.",
    )
    require(own == other, f"{label_file} is {own} and its image {name} {other}: they must have the same shape.")
    raise InputError(
        f"{label_file} is not aligned with its image {name}, from which it is up to {distance_mm:.3g} mm away: "
        "resample it to the grid of the image."
    )


def _joined(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _load(file: Path) -> SpatialImage:
    try:
        require(file.stat().st_size > 0, f"{file} is empty (0 bytes): copy or export it again.")
        image = load_image(file)
    except Exception as error:  # a damaged header can raise anything
        raise InputError(explain(file, error)) from error
    expected = "NIfTI in one file (.nii, .nii.gz) or MGH is expected."
    known = isinstance(image, nib.Nifti1Image | nib.MGHImage)
    reason = ", which does not say where left is" if isinstance(image, nib.AnalyzeImage) else ""
    require(known, f"{file} is of the kind {type(image).__name__}{reason}: {expected}")
    return image


def _check_kind(file: Path, image: SpatialImage) -> None:
    """Check that it is one volume with one real number per voxel."""
    check_one_volume(file, image.shape)
    kind = image.get_data_dtype()
    require(kind.fields is None, f"{file} has colours (RGB): an image with one number per voxel is expected.")
    real = kind.kind in "iufb"
    require(real, f"{file} has {kind.name} voxels: an image of integers or real numbers is expected.")


def _stored_header(file: Path, image: nib.Nifti1Image) -> nib.Nifti1Header:
    """Return the header of the file itself: nibabel changes sizes of 0 to 1 and of -2 to 2 when it loads one."""
    with ImageOpener(file) as stream:
        return type(image.header).from_fileobj(stream, check=False)


def _check_one_hand(file: Path, header: nib.Nifti1Header) -> None:
    """Check that sform and qform do not put left on opposite sides; then one of them is wrong."""
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        volumes = [np.linalg.det(affine[:3, :3]) for affine in (header.get_sform(), header.get_qform())]
        require(
            np.prod(np.sign(volumes)) >= 0,
            f"{file} has left and right swapped between its sform and its qform: one is wrong; convert it again from "
            "DICOM.",
        )


def _check_place(file: Path, image: SpatialImage) -> None:
    """Check that voxel size and orientation are known and consistent."""
    if isinstance(image, nib.Nifti1Image):
        stored = _stored_header(file, image)
        sizes = stored["pixdim"][1:4]
        first, header_size = int(stored["vox_offset"]), int(stored["sizeof_hdr"])
        require(
            first >= header_size,
            f"{file} has its first voxel at byte {first}, inside of its header of {header_size} bytes: its header is "
            "damaged.",
        )
        require(
            np.isfinite(sizes).all() and (sizes > 0).all(),
            f"{file} has voxels of {_joined(sizes)} mm: its header is damaged, sizes above 0 are expected.",
        )
        require(
            image.header["sform_code"] > 0 or image.header["qform_code"] > 0,
            f"{file} does not give its orientation (sform_code and qform_code are 0): left and right could be "
            "swapped; convert it again from DICOM.",
        )
        _check_one_hand(file, nib.load(file).header)
    check_invertible(file, image.affine)
    sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    upright = abs(np.linalg.det(image.affine[:3, :3] / sizes_mm)) >= _LEAST_UPRIGHT
    require(upright, f"{file} has axes that are far from right angles: its header is damaged.")
    zooms = np.asarray(image.header.get_zooms()[:3])
    require(
        may_scale(image) or np.allclose(zooms, sizes_mm, rtol=SAME_SIZE),
        f"{file} has voxels of {_joined(zooms)} mm by its pixdim and {_joined(sizes_mm)} mm by its affine: "
        "one is wrong.",
    )


def _check_field_of_view(file: Path, image: SpatialImage) -> None:
    """Check that the field of view and the slice thickness are those of a head."""
    counts = np.asarray(image.shape[:3])
    sizes_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    check_slice_count(file, int(counts.min()))
    thickest = sizes_mm.max()
    require(
        thickest <= _THICKEST_MM, f"{file} has slices of {thickest:g} mm: {_THICKEST_MM:g} mm or less are expected."
    )
    extents_mm = counts * sizes_mm
    covers = f"{file} covers {_joined(extents_mm.round())} mm"
    whole, single = extents_mm.min() >= _SMALLEST_MM, extents_mm.max() <= _LARGEST_MM
    require(whole, f"{covers}: a whole brain, at least {_SMALLEST_MM:g} mm each way, is expected.")
    require(single, f"{covers}: a single head, at most {_LARGEST_MM:g} mm each way, is expected.")
    voxels = int(np.prod(counts, dtype=np.int64))
    require(
        voxels <= _MOST_VOXELS,
        f"{file} has {voxels / 1e6:.0f} million voxels: at most {_MOST_VOXELS / 1e6:.0f} million are read; "
        "resample it to 0.5 mm or more.",
    )


def check_header(file: str | Path) -> None:
    """Check by its header that a file can be a T1w head; voxels are not read.

    Args:
        file: NIfTI or MGH.

    Raises:
        InputError: if the file is missing, empty or not an image; is not one 3D volume of real numbers; has an invalid
            or ambiguous voxel size, a singular affine, axes far from right angles or no orientation; has fewer than 8
            slices, slices thicker than 6 mm, a field of view below 80 or above 512 mm, or more than 512 x 512 x 512
            voxels.
    """
    path = Path(file)
    image = _load(path)
    for check in (_check_kind, _check_place, _check_field_of_view):
        check(path, image)


def open_image(file: str | Path) -> SpatialImage:
    """Return an image, its voxels not read, after all checks of its file but those of a head's field of view.

    Raises:
        InputError: if it is missing, damaged, or its header is refused, see :func:`check_header`.
    """
    path = Path(file)
    image = _load(path)
    check_gzip(path)
    _check_kind(path, image)
    _check_place(path, image)
    return image
