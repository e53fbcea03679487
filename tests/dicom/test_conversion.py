"""A converted series has the pixels of its instances at the positions in their headers; others are refused."""

from __future__ import annotations

import re
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset
from pydicom.uid import JPEGExtended12Bit, RLELossless

from bundle.dicom.conversion import convert_series, to_slices
from bundle.dicom.files import find_dicom_files
from bundle.dicom.series import Slices, find_slices, read_series
from bundle.errors import InputError
from tests.dicom.scans import COMPRESSED, enhanced, save, save_big_endian, save_implicit, without_preamble

pytestmark = pytest.mark.dicom


def convert(folder: Path, image: Path) -> tuple[nib.Nifti1Image, Slices, list[Path]]:
    (series,), _ = read_series(find_dicom_files(folder, folder / "results"))
    slices = find_slices(series)
    convert_series(series.files, slices, image)
    return nib.load(image), slices, series.files


def test_every_pixel_of_the_real_series_is_at_the_position_in_its_header(real_series: Path, tmp_path: Path) -> None:
    image, slices, files = convert(real_series, tmp_path / "image.nii.gz")
    assert image.shape == (192, 256, 256)
    voxels = np.asarray(image.dataobj)
    stacked = to_slices(image, slices, real_series)
    corners = np.array([[0, 0], [0, 255], [255, 0], [255, 255], [100, 30]])  # row, column
    for number, file in enumerate(files):
        instance = pydicom.dcmread(file)
        assert np.array_equal(stacked[number], instance.pixel_array)
        # By the standard's own formula (PS3.3 C.7.6.2.1.1), from the left and back to the right and front.
        row, column = np.array(instance.ImageOrientationPatient, dtype=float).reshape(2, 3)
        between_rows, between_columns = map(float, instance.PixelSpacing)
        lps = np.array(instance.ImagePositionPatient, dtype=float)
        lps = lps + np.outer(corners[:, 1] * between_columns, row) + np.outer(corners[:, 0] * between_rows, column)
        found = apply_affine(np.linalg.inv(image.affine), lps * [-1, -1, 1])
        assert np.abs(found - found.round()).max() < 2e-3
        assert np.array_equal(voxels[tuple(found.round().astype(int).T)], instance.pixel_array[tuple(corners.T)])


def test_itk_reads_the_same_head_from_the_series(real_series: Path, tmp_path: Path) -> None:
    image, _, _ = convert(real_series, tmp_path / "image.nii.gz")
    names = itk.GDCMSeriesFileNames.New(Directory=str(real_series))
    theirs = itk.imread(names.GetFileNames(names.GetSeriesUIDs()[0]), itk.F)
    ours = itk.imread(str(tmp_path / "image.nii.gz"), itk.F)
    assert image.get_fdata().mean() == pytest.approx(itk.array_view_from_image(theirs).mean(), rel=1e-6)
    for index in np.random.default_rng(0).integers(0, 192, (200, 3)).tolist():
        point = theirs.TransformIndexToPhysicalPoint(index)
        there = ours.TransformPhysicalPointToContinuousIndex(point)
        assert max(abs(one - round(one)) for one in there) < 0.01
        assert ours.GetPixel([round(one) for one in there]) == theirs.GetPixel(index)


@pytest.fixture
def plain(head_series: list[Dataset], tmp_path: Path) -> np.ndarray:
    """The voxels of the uncompressed series."""
    return np.asarray(convert(save(head_series, tmp_path / "plain"), tmp_path / "plain.nii.gz")[0].dataobj)


@pytest.mark.parametrize("name", [*COMPRESSED, "implicit", "big-endian"])
def test_every_transfer_syntax_gives_the_same_voxels(
    name: str, head_series: list[Dataset], plain: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "scan"
    if compress := COMPRESSED.get(name):
        for one in head_series:
            compress(one)
        save(head_series, folder)
    else:
        folder.mkdir()
        for number, one in enumerate(head_series):
            (save_implicit if name == "implicit" else save_big_endian)(one, folder / f"{number}.dcm")
    assert np.array_equal(convert(folder, tmp_path / "image.nii.gz")[0].dataobj, plain)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_multi_frame_object_converts_as_its_slices_do(
    direction: int, head_series: list[Dataset], plain: np.ndarray, tmp_path: Path
) -> None:
    frames = head_series[::direction]
    folder = save([enhanced(frames)], tmp_path / "scan")
    image, slices, files = convert(folder, tmp_path / "image.nii.gz")
    assert len(files) == 1
    assert np.array_equal(np.sort(np.asarray(image.dataobj), axis=None), np.sort(plain, axis=None))
    assert np.array_equal(to_slices(image, slices, folder), [one.pixel_array for one in frames])


def test_frames_that_dcm2niix_would_misplace_are_refused(head_series: list[Dataset], tmp_path: Path) -> None:
    shuffled = [head_series[number] for number in np.random.default_rng(1).permutation(48)]
    folder = save([enhanced(shuffled)], tmp_path / "scan")
    with pytest.raises(InputError, match=r"mm from the positions of its slices: .* or its frames are out of order"):
        convert(folder, tmp_path / "image.nii.gz")


def test_a_transfer_syntax_that_cannot_be_decoded_is_refused_in_a_sentence(
    head_series: list[Dataset], tmp_path: Path
) -> None:
    for one in head_series:
        one.compress(pydicom.uid.RLELossless)
        one.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    save(head_series, tmp_path / "scan")
    said = r"scan/000\.dcm is compressed as JPEG Extended \(Process 2 and 4\), which cannot be decoded here: export the"
    with pytest.raises(InputError, match=said):
        convert(tmp_path / "scan", tmp_path / "image.nii.gz")
    assert not (tmp_path / "image.nii.gz").exists()


def test_truncated_pixels_are_refused_in_a_sentence(head_series: list[Dataset], tmp_path: Path) -> None:
    save(head_series, tmp_path / "scan")
    last = tmp_path / "scan" / "047.dcm"
    last.write_bytes(last.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"scan/047\.dcm has \d+ bytes of pixels where 8192 are expected"):
        convert(tmp_path / "scan", tmp_path / "image.nii.gz")


def test_an_image_on_another_grid_is_refused(head_series: list[Dataset], tmp_path: Path) -> None:
    folder = save(head_series, tmp_path / "scan")
    image, slices, _ = convert(folder, tmp_path / "image.nii.gz")
    shifted = image.affine.copy()
    shifted[0, 3] += 0.2
    said = re.escape(f"The series in {folder} converts to voxels up to 0.20 mm from the positions of its slices")
    with pytest.raises(InputError, match=said):
        to_slices(nib.Nifti1Image(np.asarray(image.dataobj), shifted), slices, folder)
    with pytest.raises(InputError, match=r"converts to \(47, 64, 64\) voxels, its slices have \(48, 64, 64\)"):
        to_slices(image.slicer[1:], slices, folder)


@pytest.mark.parametrize("kind", ["one", "all", "with meta", "implicit", "big endian", "RLE", "multi-frame"])
def test_files_without_preamble_convert_like_the_others(
    kind: str, head_series: list[Dataset], plain: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "scan"
    for one in head_series if kind == "RLE" else ():
        one.compress(RLELossless)
    save([enhanced(head_series)] if kind == "multi-frame" else head_series, folder)
    writer = {"implicit": save_implicit, "big endian": save_big_endian}.get(kind)
    for number, one in enumerate(head_series if writer else ()):
        writer(one, folder / f"{number:03}.dcm")
    for file in sorted(folder.iterdir())[-1 if kind == "one" else 0 :]:
        without_preamble(file, keep_meta=kind in ("with meta", "RLE"))
    image, slices, _ = convert(folder, tmp_path / "image.nii.gz")
    assert np.array_equal(np.sort(np.asarray(image.dataobj), axis=None), np.sort(plain, axis=None))
    assert slices.shape == (48, 64, 64)
    assert kind == "multi-frame" or np.array_equal(np.asarray(image.dataobj), plain)
