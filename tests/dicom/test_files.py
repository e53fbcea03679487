"""DICOM files are found by their content; a sentence names missing packages, which images do not need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.dicom.files import check_installed, find_dicom_files, left_out
from bundle.errors import InputError
from bundle.files import bundle_root
from scripts.segment import segment

DICOM = bytes(128) + b"DICM"


def make(folder: Path, *names: str, content: bytes = DICOM) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_file_is_dicom_by_its_content(tmp_path: Path) -> None:
    make(tmp_path / "scans", "CD/IM0001", "CD/b.dcm", "a.IMA", "image.nii.gz", ".hidden", "results/mask.dcm")
    make(tmp_path / "scans", "notes.dcm", "short", content=b"no DICOM")
    (tmp_path / "scans" / "CD" / "loop").symlink_to(tmp_path / "scans")
    found = find_dicom_files(tmp_path / "scans", tmp_path / "scans" / "results")
    assert [str(file.relative_to(tmp_path / "scans")) for file in found] == ["a.IMA", "CD/IM0001", "CD/b.dcm"]
    assert find_dicom_files(tmp_path / "scans" / "CD" / "IM0001", tmp_path) == [tmp_path / "scans" / "CD" / "IM0001"]
    assert find_dicom_files(tmp_path / "nowhere", tmp_path) == []


@pytest.mark.parametrize(
    ("start", "is_dicom"),
    [
        (b"\x02\x00\x00\x00UL\x04\x00", True),  # meta information
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", True),  # explicit
        (b"\x08\x00\x08\x00\x16\x00\x00\x00ORIGINAL", True),  # implicit
        (b"\x00\x08\x00\x05CS\x00\x0a", True),  # big endian
        (b"\x08\x00\x00\x00\x04\x00\x00\x00\x9a\x01", True),  # ACR-NEMA's length of the group
        (b"\x08\x00\x05\x00\xff\xff\xff\xff", False),
        (b"\x08\x00\x50\x00CS\x0a\x00", False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"PK\x03\x04\x14\x00\x08\x00", False),
        (b"%PDF-1.7", False),
        (b"\x08", False),
        (b"", False),
    ],
)
def test_a_file_without_preamble_is_dicom_by_its_first_element(start: bytes, is_dicom: bool, tmp_path: Path) -> None:
    make(tmp_path, "scan", content=start)
    assert find_dicom_files(tmp_path, tmp_path / "results") == [tmp_path / "scan"] * is_dicom


def test_what_is_left_out_is_counted_by_its_kind(tmp_path: Path) -> None:
    make(tmp_path, "a/1.dcm", "a/IM2")
    assert left_out(tmp_path, tmp_path / "results", find_dicom_files(tmp_path, tmp_path / "results")) == []
    make(tmp_path, "a/report.PDF", "b/letter.pdf", "a/README", "a/cut.dcm", content=b"text")
    make(tmp_path, "a/scan.nii.gz", "results/segment.log", ".hidden", content=b"text")
    (tmp_path / "annexed.dcm").symlink_to(tmp_path / "not fetched")
    (line,) = left_out(tmp_path, tmp_path / "results", find_dicom_files(tmp_path, tmp_path / "results"))
    assert line == (
        f"{tmp_path}: left out: 5 files: 1 not DICOM (.dcm), 2 not DICOM (.pdf), 1 not DICOM (no suffix), "
        "1 unreadable, or a link to nothing"
    )


def test_source_data_of_a_bids_dataset_is_not_an_input(tmp_path: Path) -> None:
    make(tmp_path, "sourcedata/a.dcm", "dataset_description.json")
    assert find_dicom_files(tmp_path, tmp_path / "results") == []


def test_missing_packages_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bundle.dicom.files.find_spec", lambda name: None if name == "highdicom" else object())
    make(tmp_path, "scans/a.dcm")
    sentence = r"^DICOM needs packages that are not installed \(highdicom\): pip install -r requirements/dicom\.txt$"
    with pytest.raises(InputError, match=sentence):
        segment(str(tmp_path / "scans"), str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr("bundle.dicom.files.find_spec", lambda name: object())
    check_installed()


@pytest.mark.parametrize("option", [{"series": 5}, {"structured_report": True}])
def test_options_for_dicom_are_refused_without_dicom(option: dict, tmp_path: Path) -> None:
    make(tmp_path, "scan.nii", content=b"")
    (name,) = option
    sentence = f"--{name} is for DICOM, but there is none in {tmp_path}/scan.nii."
    with pytest.raises(InputError, match=re.escape(sentence)):
        segment(str(tmp_path / "scan.nii"), str(tmp_path / "results"), **option)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("scripts.segment", ("pydicom", "highdicom", "pynetdicom", "dcm2niix", "torch")),
        # MONAI imports pydicom by itself where it is installed.
        ("bundle.segmenter", ("highdicom", "pynetdicom", "dcm2niix", "bundle.dicom.source")),
    ],
)
def test_images_are_segmented_without_importing_the_dicom_packages(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=bundle_root(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
