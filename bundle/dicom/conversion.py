"""A series to NIfTI by dcm2niix, and arrays back to its slices."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from bundle.dicom.series import Slices
from bundle.errors import InputError
from bundle.files import replacing

__all__ = ["TRANSFER_SYNTAXES", "convert_series", "stage_series", "to_slices"]

_REWRITTEN = (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)  # pydicom reads them, dcm2niix does not
TRANSFER_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    *_REWRITTEN,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    pydicom.uid.JPEG2000,
    RLELossless,
    JPEGBaseline8Bit,
)
"""Those whose pixels can be decoded, the plain ones first."""

_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_LONGEST_S = 600
_LARGEST_SHIFT_MM = 0.05


def _check_pixels(file: Path, syntax: UID) -> None:
    """Refuses an instance whose pixels cannot be decoded, or are not all there: dcm2niix would take what follows.

    Raises:
        InputError: when that is so.
    """
    if syntax not in TRANSFER_SYNTAXES:
        raise InputError(
            f"{file} is compressed as {syntax.name}, which cannot be decoded here: export the series uncompressed or "
            "lossless."
        )
    if syntax.is_compressed:  # its decoder notices
        return
    instance = pydicom.dcmread(file, specific_tags=[*_SIZES, "NumberOfFrames", "PixelData"])
    rows, columns, samples, bits = (int(instance.get(name) or 1) for name in _SIZES)
    expected = rows * columns * samples * bits // 8 * int(instance.get("NumberOfFrames") or 1)
    if (found := len(instance.get("PixelData", b""))) < expected:
        raise InputError(f"{file} has {found} bytes of pixels where {expected} are expected: copy or export it again.")


def stage_series(files: Sequence[Path], folder: Path) -> None:
    """Puts the instances of a series, and nothing else, into a folder: links, or copies in a plainer transfer syntax.

    Args:
        files: its instances.
        folder: that is there, and empty.

    Raises:
        InputError: when the pixels of one cannot be decoded, or are not all there.
    """
    for number, file in enumerate(files):
        syntax = pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID", ImplicitVRLittleEndian)
        _check_pixels(file, syntax)
        staged = folder / f"{number:05}.dcm"
        if syntax in _REWRITTEN:
            instance = pydicom.dcmread(file)
            if syntax == ExplicitVRBigEndian:
                instance.PixelData = instance.pixel_array.astype(f"<u{instance.BitsAllocated // 8}").tobytes()
            instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            pydicom.dcmwrite(staged, instance, implicit_vr=False, little_endian=True, force_encoding=True)
        else:
            staged.symlink_to(file.resolve())


def convert_series(files: Sequence[Path], slices: Slices, image: Path) -> None:
    """Writes a series as NIfTI, with dcm2niix's exact geometry, which is checked against the headers'.

    Args:
        files: its instances.
        slices: its grid.
        image: the file to write, ending in ``.nii.gz``; its folder is made.

    Raises:
        InputError: when it cannot be decoded, comes out as anything but one volume on the grid of its slices, or
            cannot be written.
    """
    where = files[0].parent
    try:
        with TemporaryDirectory() as name:
            converted = _convert(files, Path(name), where)
            to_slices(nib.load(converted), slices, where)
            with replacing(image) as unfinished:
                shutil.copyfile(converted, unfinished)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"The series in {where} could not be converted: {reason}.") from error


def _convert(files: Sequence[Path], folder: Path, where: Path) -> Path:
    """The one volume that dcm2niix makes of a series, in a folder."""
    staged, converted = folder / "staged", folder / "converted"
    staged.mkdir()
    converted.mkdir()
    stage_series(files, staged)
    words = [dcm2niix.bin, *["-b", "n", "-z", "i", "-1", "-f", "image", "-o"], str(converted), str(staged)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_LONGEST_S, check=False)
    volumes = sorted(converted.glob("*.nii.gz"))
    if len(volumes) != 1:
        told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
        reason = f" ({told[0].removeprefix('Error: ')})" if told else ""
        raise InputError(f"The series in {where} converts to {len(volumes)} volumes{reason}: one is expected.")
    return volumes[0]


def to_slices(image: nib.Nifti1Image, slices: Slices, where: Path) -> np.ndarray:
    """An image on the grid of a converted series as the slices of that series, voxel for voxel.

    Args:
        image: the converted series, or its mask.
        slices: the grid of the series.
        where: the series, for the message.

    Returns:
        ``(slices, rows, columns)``, in the order of the instances or frames as they were read.

    Raises:
        InputError: when the grids are not the same but for the order and direction of the axes.
    """
    orientation = io_orientation(np.linalg.inv(slices.affine) @ image.affine)
    turned = image.affine @ inv_ornt_aff(orientation, image.shape)
    if image.shape != tuple(np.array(slices.shape)[orientation[:, 0].astype(int)]):
        raise InputError(f"The series in {where} converts to {image.shape} voxels, its slices have {slices.shape}.")
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(slices.shape) - 1)
    shifts_mm = nib.affines.apply_affine(turned, corners) - nib.affines.apply_affine(slices.affine, corners)
    if np.abs(shifts_mm).max() > _LARGEST_SHIFT_MM:
        raise InputError(
            f"The series in {where} converts to voxels up to {np.abs(shifts_mm).max():.2f} mm from where its slices "
            "lie: its headers contradict each other, or its frames are out of order; export it again."
        )
    by_height = apply_orientation(np.asarray(image.dataobj), orientation)
    as_read = np.empty_like(by_height)
    as_read[slices.order] = by_height
    return as_read
