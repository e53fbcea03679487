"""The application in the packaged bundle gives the segmentation of the batch command, and refuses what it must."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from bundle.files import bundle_root
from tests.dicom.scans import another, enhanced, in_study, save, thin

pytestmark = pytest.mark.deploy

METADATA = json.loads((Path(bundle_root()) / "configs" / "metadata.json").read_text())
AS_THE_BUNDLE = ("--backend=torch", "--workers=0", "--noprogress")


def run(root: Path, command: str, *words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", command, *words], cwd=root, capture_output=True, text=True, timeout=1800, check=False
    )


def deployed(packaged: Path, series: Path, output: Path, *words: str) -> Path:
    """Return the segmentation of the application."""
    done = run(packaged, "scripts.deploy", series, output, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    (segmentation,) = output.iterdir()
    assert f"Segmentation: {segmentation}\n" in done.stdout
    return segmentation


def batch_segmentation(series: Path, output: Path, *words: str) -> Path:
    """Return the segmentation of scripts.segment in this repository."""
    done = run(Path(bundle_root()), "scripts.segment", series, output, *AS_THE_BUNDLE, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    (segmentation,) = output.rglob("*_mask.dcm")
    return segmentation


def voxels(segmentation: Path, series: Path) -> np.ndarray:
    """Return ``(slices, rows, columns)``, in the order of the series' files."""
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in sorted(series.iterdir())]
    return highdicom.seg.segread(segmentation).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )


def test_a_stroke_is_segmented_as_by_the_batch_command(packaged: Path, lesioned_series: Path, tmp_path: Path) -> None:
    theirs = deployed(packaged, lesioned_series, tmp_path / "theirs")
    found = voxels(theirs, lesioned_series)
    assert 10_000 < found.sum() < 60_000  # of 35,000 mm3
    ours = batch_segmentation(lesioned_series, tmp_path / "ours")
    np.testing.assert_array_equal(found, voxels(ours, lesioned_series))


def test_the_real_series_with_an_overlay_is_segmented_as_by_the_batch_command(
    packaged: Path, real_series: Path, tmp_path: Path
) -> None:
    (packaged / "configs" / "native.json").write_text('{"space": "native"}')  # as the child's head is refused in MNI
    theirs = deployed(packaged, real_series, tmp_path / "theirs", "--overlays=[native]")
    found = voxels(theirs, real_series)
    assert found.sum() > 100  # the shipped weights find some, all of it false
    ours = batch_segmentation(real_series, tmp_path / "ours", "--space=native")
    np.testing.assert_array_equal(found, voxels(ours, real_series))

    made, expected = pydicom.dcmread(theirs), pydicom.dcmread(ours)
    for keyword in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "Modality", "SegmentationType"):
        assert made[keyword].value == expected[keyword].value
    assert made.SeriesDescription == made.ContentDescription == "Stroke lesion, not for clinical use"
    (segment,), (same,) = made.SegmentSequence, expected.SegmentSequence
    for keyword in (
        *("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence", "AnatomicRegionSequence"),
        *("SegmentLabel", "SegmentAlgorithmType", "TrackingID"),
    ):
        assert segment[keyword].value == same[keyword].value
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (METADATA["name"], METADATA["version"])
    assert referenced(made) == referenced(expected)
    assert len(referenced(made)[1]) == 192


def referenced(segmentation: Dataset) -> tuple[str, set[str]]:
    """Return the series and the instances that a segmentation refers to."""
    (series,) = segmentation.ReferencedSeriesSequence
    return series.SeriesInstanceUID, {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}


def test_a_head_that_cannot_be_registered_is_refused_and_nothing_is_written(
    packaged: Path, real_series: Path, tmp_path: Path
) -> None:
    done = run(packaged, "scripts.deploy", real_series, tmp_path / "output")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"Error: series 5 (SAG MPRAGE) in {real_series} could not be segmented: "
        "The image could not be placed in MNI space (its similarity to the template is "
    )
    assert not (tmp_path / "output").exists()


def oblong(series: list[Dataset]) -> list[Dataset]:
    for one in series:
        one.PixelSpacing = [3.4375, 4.0]
    return series


def two_studies(series: list[Dataset]) -> list[Dataset]:
    return [*series, *in_study(series, "B")]


REFUSED: dict[str, tuple[Callable[[list[Dataset]], list[Dataset]], str]] = {
    "a slice is missing": (lambda series: series[:20] + series[21:], "lacks 1 of 48 slices (3.60 mm apart)"),
    "no T1w series": (
        lambda series: another(series, 9, "T2"),
        "holds no T1w series (series 9 (T2): its name says 'T2'",
    ),
    "two studies": (two_studies, "holds 2 DICOM studies: one is expected; scripts.segment takes many."),
    "multi-frame": (lambda series: [enhanced(series)], "is multi-frame, which MONAI Deploy cannot read: use scripts.s"),
    "oblong pixels": (oblong, "has pixels of 3.4375 x 4 mm, which MONAI Deploy cannot read: use scripts.segment."),
    "nothing": (lambda series: [], "holds 0 DICOM studies: one is expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_study_that_the_sdk_would_read_wrongly_is_refused_in_a_sentence(
    name: str, real_series: Path, tmp_path: Path
) -> None:
    change, sentence = REFUSED[name]
    save(change(thin(real_series)), tmp_path / "scan")
    done = run(Path(bundle_root()), "scripts.deploy", tmp_path / "scan", tmp_path / "output")
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()


def test_copies_and_other_series_are_left_out(packaged: Path, lesioned_series: Path, tmp_path: Path) -> None:
    """The SDK alone would stack each slice twice, and take the first MR series that it meets."""
    slices = [pydicom.dcmread(file) for file in sorted(lesioned_series.iterdir())]
    save(slices, tmp_path / "study" / "scan")
    save(slices, tmp_path / "study" / "copy")
    save(another(slices, 2, "T2"), tmp_path / "study" / "a")
    (tmp_path / "study" / "notes.txt").write_text("no DICOM")
    theirs = deployed(packaged, tmp_path / "study", tmp_path / "theirs")
    alone = deployed(packaged, lesioned_series, tmp_path / "alone")
    np.testing.assert_array_equal(voxels(theirs, lesioned_series), voxels(alone, lesioned_series))
