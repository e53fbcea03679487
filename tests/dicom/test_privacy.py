"""Free texts of DICOM headers get into no file; an object has what it must have of the patient, and nothing else."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.dicom.scans import another, enhanced, in_study, save
from tests.dicom.test_segment import segment
from tests.dicom.test_untidy import objects
from tests.scripts.privacy import files_with_secrets, secrets_in

pytestmark = pytest.mark.dicom

TEXTS = ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
# What an object must have of its source, by the Patient and General Study modules.
NEEDED = ("PatientName", "PatientID", "StudyID", "AccessionNumber", "ReferringPhysicianName")
ADDED = (
    *("PatientComments", "AdditionalPatientHistory", "OtherPatientNames", "Occupation", "PatientAddress"),
    *("IssuerOfPatientID", "MedicalAlerts", "ImageComments", "StudyComments", "StudyDescription"),
    *("DerivationDescription", "PositionReferenceIndicator", "NameOfPhysiciansReadingStudy", "AcquisitionComments"),
    *("StationName", "InstitutionName", "ContentLabel", "RetrieveURI", "ClinicalTrialSiteName"),
)


def with_secrets(one: Dataset) -> set[bytes]:
    """Write a secret into each text of an instance, also private and nested ones; return those an object must have."""
    for keyword in ADDED:
        setattr(one, keyword, "text")
    item, inner = Dataset(), Dataset()
    inner.CodeMeaning = item.RequestedProcedureDescription = "text"
    item.RequestedProcedureCodeSequence = [inner]
    one.RequestAttributesSequence = one.ReferencedStudySequence = one.OtherPatientIDsSequence = [item]
    block = one.private_block(0x0011, "STROKE TEST", create=True)
    block.add_new(0x01, "LO", "text")
    block.add_new(0x02, "UN", b"SECRET00")
    names = (f"SECRET{number:03}" for number in count(1))
    texts = [element for element in one.iterall() if element.VR in TEXTS and not element.tag.is_private_creator]
    for element in texts:
        element.value = f"T1 {next(names)}" if element.keyword == "SeriesDescription" else next(names)
    return {str(one[keyword].value).encode() for keyword in NEEDED}


def secret(series: list[Dataset]) -> set[bytes]:
    (needed,) = {frozenset(with_secrets(one)) for one in series}
    return set(needed)


def test_the_command_writes_no_text_of_a_header(head_series: list[Dataset], tmp_path: Path) -> None:
    """Of a study with a series that is taken, one that is passed over, and of a study that is refused."""
    study = in_study(head_series, "A")
    other = another(study[:9], 7, "t2")
    refused = another(in_study(head_series[:9], "B"), 8, "t2")
    needed, *_ = [secret(series) for series in (study, other, refused)]
    for one in (*other, *refused):
        one.SeriesDescription = f"SECRET t2 {one.SeriesDescription}"
    for number, series in enumerate((study, other, refused)):
        save(series, tmp_path / "scans" / ("b" if series is refused else "a"), f"{number}" + "{:03}.dcm")
    output = tmp_path / "results"
    done = segment(tmp_path / "scans", output, "--structured_report", "--views", "--probability", "--uncertainty")
    assert done.returncode == 1  # of the refused one
    assert "taken: series 5 (T1): T1w" in done.stdout
    assert len(list(output.rglob("*.dcm"))) == len(list(output.rglob("*_probseg.nii.gz"))) == 2
    assert files_with_secrets(output, ".dcm") == {}
    assert "SECRET" not in done.stdout + done.stderr
    for file in output.rglob("*.dcm"):
        assert secrets_in(file) == needed, file
        made = pydicom.dcmread(file)
        assert not [element.keyword for element in made.iterall() if element.tag.is_private]
        assert made.PatientBirthDate == study[0].PatientBirthDate


def test_objects_of_a_multi_frame_series_have_no_other_text_either(head_series: list[Dataset], tmp_path: Path) -> None:
    whole = enhanced(head_series)
    for groups in (*whole.PerFrameFunctionalGroupsSequence, whole.SharedFunctionalGroupsSequence[0]):
        for sequence in list(groups):
            sequence.value[0].FrameComments = "text"
    needed = with_secrets(whole)
    objects([whole], tmp_path)
    for file in (tmp_path / "results").rglob("*.dcm"):
        assert secrets_in(file) == needed, file
    assert files_with_secrets(tmp_path / "results", ".dcm") == {}
