"""DICOM files are found by their content; a sentence names missing packages, which images do not need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.dicom.files import check_installed, find_dicom_files
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
