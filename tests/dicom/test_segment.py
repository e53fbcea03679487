"""The batch command on DICOM as a user types it: one study, and many with images and broken studies among them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from bundle.dicom.conversion import to_slices
from bundle.dicom.files import find_dicom_files
from bundle.dicom.series import find_slices, read_series
from bundle.dicom.source import find_studies
from bundle.files import bundle_root
from tests.conftest import WriteNifti
from tests.dicom.scans import another, in_study, save, without_preamble

pytestmark = pytest.mark.dicom


def segment(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the command without registration: the child's head is too different from the template's."""
    words = [sys.executable, "-m", "scripts.segment", str(source), str(output), "--space=native", "--noprogress"]
    return subprocess.run(
        [*words, "--workers=0", *options], cwd=bundle_root(), capture_output=True, text=True, timeout=900, check=False
    )


def records(output: Path) -> dict[str, dict]:
    found = (json.loads(file.read_text()) for file in (output / "records").rglob("*.json"))
    return {record["name"]: record for record in found}


def same_as_mask(segmentation: Path, mask: Path, files: list[Path]) -> int:
    """Compare a segmentation with a mask, and return its number of voxels."""
    (read,), _ = read_series(files)
    expected = to_slices(nib.load(mask), find_slices(read), files[0].parent)
    uids = [header.SOPInstanceUID for header in read.headers]
    found = highdicom.seg.segread(segmentation).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(found, expected)
    return int(found.sum())


def test_the_real_series_from_its_folder_to_a_segmentation_and_a_report(real_series: Path, tmp_path: Path) -> None:
    done = segment(real_series, tmp_path, "--structured_report")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    taken = f"{real_series}: taken: series 5 (SAG MPRAGE): T1w, 192 slices of 0.9 mm"
    assert taken in done.stdout
    assert taken in (tmp_path / "segment.log").read_text()
    stem = "series-5_space-orig_label-L_desc-lesion"
    mask, segmentation = tmp_path / f"{stem}_mask.nii.gz", tmp_path / f"{stem}_mask.dcm"
    voxels = same_as_mask(segmentation, mask, sorted(real_series.iterdir()))
    image = nib.load(tmp_path / "images" / "series-5.nii.gz")
    np.testing.assert_array_equal(nib.load(mask).affine, image.affine)
    (record,) = records(tmp_path).values()
    assert voxels > 100  # the shipped weights find some, all of it false
    volume_ml = voxels * 0.859375**2 * 0.9 / 1000
    assert record["volume_ml"] == pytest.approx(volume_ml, rel=1e-4)
    report = highdicom.sr.srread(tmp_path / f"{stem}_report.dcm")
    (whole,) = report.content.get_volumetric_roi_measurement_groups()
    assert whole.get_measurements()[0].value == pytest.approx(volume_ml, abs=1e-3)
    assert len(report.content.get_image_measurement_groups()) == len(record["lesions"])

    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.dcm")}
    assert segment(real_series, tmp_path, "--structured_report").returncode == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.dcm")} == before
    assert segment(real_series, tmp_path).returncode == 0
    assert not (tmp_path / f"{stem}_report.dcm").exists()


@pytest.fixture
def mixed(head_series: list[Dataset], head: np.ndarray, write_nifti: WriteNifti, tmp_path: Path) -> Path:
    """A patient; two in one folder; one with a slice missing, one with T2 alone; an image; half a file."""
    folder = tmp_path / "scans"
    save(in_study(head_series, "A"), folder / "a", "IM{:04}")
    for patient in ("B", "C"):
        save(in_study(head_series, patient), folder / "two studies", patient + "{:03}.dcm")
    save(another(in_study(head_series, "D"), 9, "T2"), folder / "t2 only")
    short = in_study(head_series, "E")
    save(short[:20] + short[21:], folder / "gap")
    (folder / "cut.dcm").write_bytes((folder / "a" / "IM0000").read_bytes()[:700])
    assert write_nifti("scans/c/scan.nii.gz", head).exists()
    return folder


def test_a_folder_of_studies_and_images_is_one_batch(mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    done = segment(mixed, output)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    found = records(output)
    two = {name for name in found if re.fullmatch(r"two studies/series-5-[0-9a-f]{8}", name)}
    assert len(two) == 2
    assert {name: record["status"] for name, record in found.items()} == {
        **dict.fromkeys(two, "done"),
        "a/series-5": "done",
        "c/scan": "done",
        "t2 only/study": "failed",
        "gap/study": "failed",
        "cut.dcm": "failed",
    }
    assert "t2 only holds no T1w series (series 9 (T2): its name says 'T2')" in found["t2 only/study"]["error"]
    assert "gap lacks 1 of 48 slices (3.60 mm apart)" in found["gap/study"]["error"]
    assert "cut.dcm has no StudyInstanceUID: it is a damaged DICOM file" in found["cut.dcm"]["error"]
    with (output / "volumes.tsv").open(newline="") as stream:
        assert {row["name"] for row in csv.DictReader(stream, delimiter="\t")} == set(found)
    segmentations = {pydicom.dcmread(file).PatientID: file for file in output.rglob("*.dcm")}
    assert segmentations.keys() == {"A", "B", "C"}
    for patient, folder, pattern in (("A", "a", "IM*"), ("B", "two studies", "B*"), ("C", "two studies", "C*")):
        mask = segmentations[patient].with_suffix(".nii.gz")
        same_as_mask(segmentations[patient], mask, sorted((mixed / folder).glob(pattern)))


def test_a_single_slice_is_refused(head_series: list[Dataset], tmp_path: Path) -> None:
    save(head_series, tmp_path / "scan")
    done = segment(tmp_path / "scan" / "003.dcm", tmp_path / "results")
    assert done.returncode == 1
    assert "has 1 slices: a head of at least 8 is expected" in done.stderr


def test_nothing_in_the_folder_of_a_study_is_left_out_unsaid(head_series: list[Dataset], tmp_path: Path) -> None:
    """Slices without preamble are used; other series, copies, texts and links to nothing are named."""
    folder = save(head_series, tmp_path / "scan")
    save(another(head_series[:3], 2, "localizer"), tmp_path / "scan", "loc{}.dcm")
    shutil.copy(folder / "000.dcm", folder / "copy of 000.dcm")
    (folder / "notes.txt").write_text("text")
    (folder / "051.dcm").symlink_to(folder / "annexed")
    without_preamble(folder / "047.dcm")
    done = segment(tmp_path / "scan", tmp_path / "results")
    assert done.returncode == 0, done.stderr[-2000:]
    log = (tmp_path / "results" / "segment.log").read_text()
    for line in (
        f"{folder}: taken: series 5 (SAG MPRAGE): T1w, 48 slices of 3.6 mm",
        f"{folder}: passed over: series 2 (localizer): its name says 'loc'",
        f"{folder}: left out: 1 DICOM files: copies of others, or the index of a CD",
        f"{folder}: left out: 2 files: 1 not DICOM (.txt), 1 unreadable, or a link to nothing",
    ):
        assert done.stdout.count(line) == log.count(line) == 1


def test_a_file_that_begins_as_dicom_and_is_damaged_is_named(head_series: list[Dataset], tmp_path: Path) -> None:
    save(head_series, tmp_path / "scan")
    without_preamble(tmp_path / "scan" / "047.dcm")
    whole = (tmp_path / "scan" / "047.dcm").read_bytes()
    (tmp_path / "scan" / "047.dcm").write_bytes(whole[:60])
    done = segment(tmp_path / "scan", tmp_path / "results")
    assert done.returncode == 1
    assert "047.dcm has no " in done.stderr
    assert "it is a damaged DICOM file, copy or export it again" in done.stderr


def test_results_of_a_folder_that_is_not_named_in_utf8_are(head_series: list[Dataset], tmp_path: Path) -> None:
    folder = save(head_series, tmp_path / os.fsdecode(b"d\xe9p"))
    (folder / "cut.dcm").write_bytes((folder / "000.dcm").read_bytes()[:700])
    files = find_dicom_files(tmp_path, tmp_path / "results")
    (study, refused), _ = find_studies(files, tmp_path, tmp_path / "results")
    assert (study.name, refused.name) == ("d%E9p/series-5", "d%E9p/cut.dcm")
    study.prepare_source()
    assert nib.load(tmp_path / "results/images/d%E9p/series-5.nii.gz").shape == (48, 64, 64)
