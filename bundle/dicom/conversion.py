"""A series to NIfTI by dcm2niix, and arrays back to its slices."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from pydicom import uid
from pydicom.dataset import Dataset

from bundle.dicom.headers import drop_unreadable, read_dicom
from bundle.dicom.series import Slices
from bundle.errors import InputError
from bundle.transforms.writers import save_on_grid

__all__ = ["TRANSFER_SYNTAXES", "convert_series", "stage_series", "to_slices"]

# pydicom reads them, dcm2niix does not.
_REWRITTEN = (uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
TRANSFER_SYNTAXES: tuple[uid.UID, ...] = (
    *uid.UncompressedTransferSyntaxes,
    *(uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    *(uid.JPEG2000Lossless, uid.JPEG2000, uid.RLELossless, uid.JPEGBaseline8Bit),
)
"""The transfer syntaxes whose pixels can be decoded, in order of preference."""

_SIZES = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
_TIMEOUT_S = 600
_MAX_SHIFT_MM = 0.05


def _check_pixels(file: Path, syntax: uid.UID) -> None:
    """Check that the pixels of an instance can be decoded and are complete: dcm2niix reads past the end of the file.

    Raises:
        InputError: if they cannot, or are not.
    """
    if syntax not in TRANSFER_SYNTAXES:
        raise InputError(
            f"{file} is compressed as {syntax.name}, which cannot be decoded here: export the series uncompressed or "
            "lossless."
        )
    if syntax.is_compressed:  # the decoder notices
        return
    instance = read_dicom(file, specific_tags=[*_SIZES, "PixelData"])
    expected = math.prod(int(instance.get(name) or 1) for name in _SIZES) // 8
    if (found := len(instance.get("PixelData", b""))) < expected:
        raise InputError(f"{file} has {found} bytes of pixels where {expected} are expected: copy or export it again.")


def _transfer_syntax(header: Dataset) -> uid.UID:
    """Return the transfer syntax of an instance, by how it was read if it does not say."""
    implicit, little = header.original_encoding
    by_reading = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    return header.file_meta.get("TransferSyntaxUID") or (uid.ImplicitVRLittleEndian if implicit else by_reading)


def _rewrite(file: Path, syntax: uid.UID, staged: Path) -> None:
    """Write an instance with a preamble, in a transfer syntax that dcm2niix reads."""
    instance = read_dicom(file)
    instance.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian:
        drop_unreadable(instance)
        instance.PixelData = instance.pixel_array.astype(f"<u{instance.BitsAllocated // 8}").tobytes()
    instance.preamble = bytes(128)
    if syntax in _REWRITTEN:
        instance.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    implicit = syntax == uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(staged, instance, implicit_vr=implicit, little_endian=True, force_encoding=True)


def stage_series(files: Sequence[Path], folder: Path) -> None:
    """Put the instances of a series into a folder: links, or copies that dcm2niix reads.

    Args:
        files: the instances.
        folder: an existing, empty folder.

    Raises:
        InputError: if the pixels of an instance cannot be decoded, or are not complete.
    """
    for number, file in enumerate(files):
        header = read_dicom(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        syntax = _transfer_syntax(header)
        _check_pixels(file, syntax)
        staged = folder / f"{number:05}.dcm"
        if syntax in _REWRITTEN or not header.preamble:
            _rewrite(file, syntax, staged)
        else:
            staged.symlink_to(file.resolve())


def convert_series(files: Sequence[Path], slices: Slices, image: Path) -> None:
    """Write a series as NIfTI, with the geometry of its headers, against which dcm2niix's is checked.

    dcm2niix rounds, so its last slice can be 0.001 mm away from where the headers put it.

    Args:
        files: the instances.
        slices: the grid of the series.
        image: the file to write, ending in ``.nii.gz``; its folder is made.

    Raises:
        InputError: if the series cannot be decoded, does not convert to one volume on the grid of its slices, or cannot
            be written.
    """
    where = files[0].parent
    try:
        with TemporaryDirectory() as name:
            converted = _convert(files, Path(name), where)
            volume = nib.load(converted)
            to_slices(volume, slices, where)
            exact = slices.affine @ np.linalg.inv(inv_ornt_aff(_orientation(volume, slices), volume.shape))
            volume.set_sform(exact, code="scanner")
            volume.set_qform(exact, code="scanner")
            voxels = np.asarray(volume.dataobj)  # dcm2niix writes comments of the scanner into its header
            save_on_grid(voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels, volume, image)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"The series in {where} could not be converted: {reason}.") from error


def _convert(files: Sequence[Path], folder: Path, where: Path) -> Path:
    """Return the one volume that dcm2niix makes of a series, in a folder."""
    staged, converted = folder / "staged", folder / "converted"
    staged.mkdir()
    converted.mkdir()
    stage_series(files, staged)
    words = [dcm2niix.bin, *["-b", "n", "-z", "n", "-f", "image", "-o"], str(converted), str(staged)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    volumes = sorted(converted.glob("*.nii"))
    if len(volumes) != 1:
        lines = (done.stdout + done.stderr).splitlines()
        message = next((line for line in lines if line.startswith(("Error", "Warning"))), "")
        reason = message and f" ({message.removeprefix('Error: ')})"
        raise InputError(f"The series in {where} converts to {len(volumes)} volumes{reason}: one is expected.")
    return volumes[0]


def _orientation(image: nib.Nifti1Image, slices: Slices) -> np.ndarray:
    """Return the order and direction of an image's axes as slice, row and column, for nibabel."""
    orientation: np.ndarray = io_orientation(np.linalg.inv(slices.affine) @ image.affine)
    return orientation


def to_slices(image: nib.Nifti1Image, slices: Slices, where: Path) -> np.ndarray:
    """Return an image on the grid of a converted series as the slices of that series, voxel for voxel.

    Args:
        image: the converted series, or its mask.
        slices: the grid of the series.
        where: the folder of the series, for error messages.

    Returns:
        ``(slices, rows, columns)``, in the order in which the instances or frames were read.

    Raises:
        InputError: if the grids differ in more than the order and direction of their axes.
    """
    orientation = _orientation(image, slices)
    if image.shape != tuple(np.array(slices.shape)[orientation[:, 0].astype(int)]):
        raise InputError(f"The series in {where} converts to {image.shape} voxels, its slices have {slices.shape}.")
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(slices.shape) - 1)
    reoriented = image.affine @ inv_ornt_aff(orientation, image.shape)
    shift_mm = np.abs(nib.affines.apply_affine(reoriented - slices.affine, corners)).max()
    if shift_mm > _MAX_SHIFT_MM:
        raise InputError(
            f"The series in {where} converts to voxels up to {shift_mm:.2f} mm from the positions of its slices: its "
            "headers contradict each other, or its frames are out of order; export it again."
        )
    by_position = apply_orientation(np.asarray(image.dataobj), orientation)
    as_read = np.empty_like(by_position)
    as_read[slices.order] = by_position
    return as_read
