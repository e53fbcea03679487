"""The DICOM segmentation is the mask, voxel for voxel, read back by three libraries; the report has its volumes."""

from __future__ import annotations

from pathlib import Path

import highdicom
import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bundle.dicom.conversion import convert_series, to_slices
from bundle.dicom.files import find_dicom_files
from bundle.dicom.report import make_report
from bundle.dicom.segmentation import INFARCT, make_segmentation, read_source
from bundle.dicom.series import Slices, find_slices, read_series
from bundle.volumes.inputs import Algorithm
from bundle.volumes.lesion_table import VolumeLesion
from tests.dicom.scans import enhanced, save

pytestmark = pytest.mark.dicom

ALGORITHM = Algorithm("TSRLNet for stroke lesions", "0.1.0", "a7168d10" * 8, 0.5)


def convert(folder: Path, image: Path) -> tuple[nib.Nifti1Image, Slices, list[Path]]:
    (series,), _ = read_series(find_dicom_files(folder, folder / "results"))
    slices = find_slices(series)
    convert_series(series.files, slices, image)
    return nib.load(image), slices, series.files


def written(folder: Path, mask: np.ndarray, image: nib.Nifti1Image, slices: Slices, files: list[Path]) -> Path:
    """Write the segmentation of a mask on the grid of the converted image."""
    on_slices = to_slices(nib.Nifti1Image(mask, image.affine), slices, folder)
    path = folder.parent / "mask.dcm"
    make_segmentation(read_source(files), on_slices, ALGORITHM).save_as(path)
    return path


def lps_of_segment(segmentation: Dataset) -> np.ndarray:
    """Return the positions of the segment's voxels in mm, ``(N, 3)``, by pydicom and the standard's formula."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    points = []
    for pixels, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(pixels)
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        points.append(origin + np.outer(columns * between_columns, row) + np.outer(rows * between_rows, column))
    return np.concatenate(points)


@pytest.fixture(scope="module")
def random_mask() -> np.ndarray:
    """Random voxels and some of the corners, without symmetry; a third of the sagittal slices is empty."""
    mask = (np.random.default_rng(3).random((192, 256, 256)) < 0.001).astype(np.uint8)
    mask[20:84] = 0
    mask[0, 0, 0] = mask[-1, 0, -1] = mask[-1, -1, 0] = 1
    return mask


def test_the_segmentation_of_the_real_series_equals_the_mask(
    real_series: Path, random_mask: np.ndarray, tmp_path: Path
) -> None:
    image, slices, files = convert(real_series, tmp_path / "image.nii.gz")
    path = tmp_path / "mask.dcm"
    on_slices = to_slices(nib.Nifti1Image(random_mask, image.affine), slices, real_series)
    make_segmentation(read_source(files), on_slices, ALGORITHM).save_as(path)

    read = highdicom.seg.segread(path)
    by_instance = read.get_pixels_by_source_instance(
        [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in files],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(by_instance, on_slices)
    assert read.NumberOfFrames == 128  # the empty slices are left out

    lps = lps_of_segment(pydicom.dcmread(path))
    found = apply_affine(np.linalg.inv(image.affine), lps * [-1, -1, 1])
    assert np.abs(found - found.round()).max() < 2e-3
    theirs = np.zeros_like(random_mask)
    theirs[tuple(found.round().astype(int).T)] = 1
    assert np.array_equal(theirs, random_mask)

    nib.save(nib.Nifti1Image(random_mask, image.affine), tmp_path / "mask.nii.gz")
    by_itk = itk.imread(str(tmp_path / "mask.nii.gz"), itk.UC)
    assert len(lps) == random_mask.sum()
    assert all(by_itk.GetPixel(by_itk.TransformPhysicalPointToIndex(point)) == 1 for point in lps.tolist())


def test_the_segmentation_names_its_segment_algorithm_and_source(head_series: list[Dataset], tmp_path: Path) -> None:
    folder = save(head_series, tmp_path / "scan")
    image, slices, files = convert(folder, tmp_path / "image.nii.gz")
    mask = np.zeros(image.shape, np.uint8)
    mask[20:24, 30:33, 40:42] = 1
    read = pydicom.dcmread(written(folder, mask, image, slices, files))
    source = head_series[0]
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "AccessionNumber", "StudyDate"):
        assert read[keyword].value == source[keyword].value
    assert read.SeriesInstanceUID != source.SeriesInstanceUID
    assert (read.Modality, read.SegmentationType, read.SeriesNumber) == ("SEG", "BINARY", 1005)
    assert read.SeriesDescription == "Stroke lesion, not for clinical use"
    (segment,) = read.SegmentSequence
    coded = {
        "SegmentedPropertyCategoryCodeSequence": codes.SCT.MorphologicallyAbnormalStructure,
        "SegmentedPropertyTypeCodeSequence": INFARCT,
        "AnatomicRegionSequence": codes.SCT.Brain,
    }
    for keyword, code in coded.items():
        (item,) = segment[keyword].value
        assert (item.CodeValue, item.CodingSchemeDesignator) == (code.value, "SCT")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ALGORITHM[:2]
    assert algorithm.AlgorithmParameters == f"weights SHA-256={ALGORITHM.weights},threshold=0.5"
    (referenced,) = read.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    instances = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert instances == {one.SOPInstanceUID for one in head_series}


def test_the_uid_depends_on_the_mask(head_series: list[Dataset], tmp_path: Path) -> None:
    folder = save(head_series, tmp_path / "scan")
    image, slices, files = convert(folder, tmp_path / "image.nii.gz")
    mask = np.zeros(image.shape, np.uint8)
    uids = []
    for voxel in (5, 5, 6):
        mask[:] = 0
        mask[voxel, 10, 10] = 1
        uids.append(pydicom.dcmread(written(folder, mask, image, slices, files)).SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_a_mask_without_lesion_becomes_a_segmentation(head_series: list[Dataset], tmp_path: Path) -> None:
    folder = save(head_series, tmp_path / "scan")
    image, slices, files = convert(folder, tmp_path / "image.nii.gz")
    read = highdicom.seg.segread(written(folder, np.zeros(image.shape, np.uint8), image, slices, files))
    assert read.pixel_array.sum() == 0
    assert read.SegmentSequence[0].SegmentLabel == "Stroke lesion"


def test_the_order_of_instances_and_frames_does_not_move_the_mask(head_series: list[Dataset], tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(48)
    shuffled = [head_series[number] for number in order]
    for name, stored in (("single", shuffled), ("multi", [enhanced(head_series[::-1])])):
        folder = save(stored, tmp_path / name / "scan")
        image, slices, files = convert(folder, tmp_path / name / "image.nii.gz")
        mask = (np.random.default_rng(2).random(image.shape) < 0.01).astype(np.uint8)
        lps = lps_of_segment(pydicom.dcmread(written(folder, mask, image, slices, files)))
        found = apply_affine(np.linalg.inv(image.affine), lps * [-1, -1, 1]).round().astype(int)
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, np.argwhere(mask).tolist()))


def test_attributes_that_an_anonymiser_removed_are_not_needed(head_series: list[Dataset], tmp_path: Path) -> None:
    for one in head_series:
        for keyword in ("PatientName", "PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            del one[keyword]
    folder = save(head_series, tmp_path / "scan")
    image, slices, files = convert(folder, tmp_path / "image.nii.gz")
    mask = np.ones(image.shape, np.uint8)
    read = pydicom.dcmread(written(folder, mask, image, slices, files))
    assert read.PatientID == head_series[0].PatientID
    assert read.pixel_array.all()


def test_the_report_has_the_volume_of_all_and_of_each(head_series: list[Dataset], tmp_path: Path) -> None:
    folder = save(head_series, tmp_path / "scan")
    image, slices, files = convert(folder, tmp_path / "image.nii.gz")
    source = read_source(files)
    mask = to_slices(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), slices, folder)
    segmentation = make_segmentation(source, mask, ALGORITHM)
    lesions = [
        VolumeLesion(1, 12.25, 0, 0, 0, "left", "", 0.9, 0.1, 0.876),
        VolumeLesion(2, 0.5, 0, 0, 0, "unknown", "", 0.9, 0.1),
    ]
    make_report(source, segmentation, lesions, 0.734, ALGORITHM).save_as(tmp_path / "report.dcm")
    report = highdicom.sr.srread(tmp_path / "report.dcm")
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    assert report.SeriesDescription == "Stroke lesion volumes, not for clinical use"
    assert (report.StudyInstanceUID, report.PreliminaryFlag) == (source[0].StudyInstanceUID, "PRELIMINARY")
    (whole,) = report.content.get_volumetric_roi_measurement_groups()
    assert whole.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    pieces = report.content.get_image_measurement_groups()
    groups = {group.tracking_identifier: group.get_measurements()[0] for group in (whole, *pieces)}
    assert {name: (one.name, one.value, one.unit.value) for name, one in groups.items()} == {
        "stroke lesion": (codes.SCT.Volume, 12.75, "mL"),
        "lesion 1": (codes.SCT.Volume, 12.25, "mL"),
        "lesion 2": (codes.SCT.Volume, 0.5, "mL"),
    }
    sides = [piece.finding_sites[0].laterality for piece in pieces]
    assert sides == [codes.SCT.Left, None]
    worth = [
        [(one.name.meaning, one.value, one.unit.value) for one in group.get_measurements()[1:]]
        for group in (whole, *pieces)
    ]
    certain = ("Certainty of Finding", 88, "%")
    assert worth == [[("Predicted Dice similarity coefficient", 0.73, "1")], [certain], []]
