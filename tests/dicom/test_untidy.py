"""Values that do not follow DICOM, and that a mask does not need, never decide whether there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from bundle.dicom.files import find_dicom_files
from bundle.dicom.source import DicomVolume, find_studies
from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.volumes.lesion_table import VolumeLesion
from tests.dicom.scans import enhanced, save
from tests.dicom.test_segmentation import ALGORITHM

pytestmark = pytest.mark.dicom


def raw(series: list[Dataset], vr: str = "", **values: bytes) -> list[Dataset]:
    """Set elements to bytes that no writer of DICOM would write."""
    for one in series:
        for keyword, value in values.items():
            tag = Tag(tag_for_keyword(keyword))
            value += b" " * (len(value) % 2)
            one[tag] = RawDataElement(tag, vr or dictionary_VR(tag), len(value), value, 0, False, True)
    return series


@contextmanager
def strict() -> Iterator[None]:
    """Let pydicom refuse what does not follow the standard."""
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    try:
        yield
    finally:
        config.settings.reading_validation_mode = before


def valid(file: Path) -> Dataset:
    """Return an object, each of whose values was decoded by a reader that refuses what does not follow the standard."""
    with strict():
        read = pydicom.dcmread(file)
        assert [element.value for element in read.iterall()]  # to decode a value that is not valid raises
    return read


def save_with(series: list[Dataset], folder: Path, name: bytes = b"") -> None:
    """Save a series with a patient's name that is written byte for byte, whatever its character set."""
    name += b" " * (len(name) % 2)
    save(raw(series, PatientName=b"@" * len(name)) if name else series, folder)
    for file in folder.iterdir() if name else ():
        file.write_bytes(file.read_bytes().replace(b"@" * len(name), name))


def objects(series: list[Dataset], folder: Path, name: bytes = b"") -> tuple[Dataset, Dataset, list[str]]:
    """Return the segmentation and the report of a series with a mask of one cube, and the lines for the log."""
    save_with(series, folder / "scans", name)
    output = folder / "results"
    files = find_dicom_files(folder / "scans", output)
    (volume,), lines = find_studies(files, folder / "scans", output, structured_report=True)
    assert isinstance(volume, DicomVolume), volume
    volume.prepare_source()
    image = nib.load(volume.file)
    mask = np.zeros(image.shape, np.uint8)
    mask[20:24, 30:33, 28:32] = 1
    lesions = [VolumeLesion(1, 1.95, 0, 0, 0, "left", "", 0.9, 0.1)]
    _, *made = volume.write_extra(output, nib.Nifti1Image(mask, image.affine), lesions, 0.7, ALGORITHM)
    segmentation, report = map(valid, made)
    assert segmentation.pixel_array.sum() == mask.sum()
    assert report.StudyInstanceUID == segmentation.StudyInstanceUID == series[0].StudyInstanceUID
    return segmentation, report, lines


KANJI = "Yamada^Tarou=山田^太郎=やまだ^たろう"
# An attribute, the bytes in the file, and what the objects say; an empty text where the bytes mean nothing.
UNTIDY: dict[str, tuple[str, bytes, str]] = {
    "a year": ("PatientBirthDate", b"1950", ""),
    "no day": ("PatientBirthDate", b"19500231", ""),
    "dots": ("PatientBirthDate", b"1950.02.28", "19500228"),
    "words": ("PatientBirthDate", b"unknown", ""),
    "no date": ("StudyDate", b"", ""),
    "an anonymiser's date": ("StudyDate", b"00000000", ""),
    "a date with hyphens": ("StudyDate", b"2013-03-08", "20130308"),
    "colons": ("StudyTime", b"07:42:24", "074224"),
    "a fraction that is too long": ("StudyTime", b"074224.123456789", "074224.123456"),
    "a time of day that is none": ("StudyTime", b"7.42 pm", ""),
    "a sex in words": ("PatientSex", b"female", "F"),
    "a sex in another language": ("PatientSex", b"W", ""),
    "a long number": ("AccessionNumber", b"2013-03-08/MR/0000417", "2013-03-08/MR/00"),
    "a long study": ("StudyID", b"STUDY 123456789 OF MANY", "STUDY 123456789"),
    "a long patient": ("PatientID", b"1449c1d" * 10, ("1449c1d" * 10)[:64]),
    "several patients": ("PatientID", b"1449c1d\\12", "1449c1d 12"),
    "a line break": ("PatientID", b"1449\r\nc1d", "1449c1d"),
    "six components": ("PatientName", b"A^B^C^D^E^F", "A^B^C^D^E F"),
    "a backslash": ("PatientName", b"DOE\\JANE", "DOE JANE"),
    "four groups": ("PatientName", b"A=B=C=D", "A=B=C"),
    "a long name": ("ReferringPhysicianName", b"Dr " + b"x" * 80, "Dr " + "x" * 61),
    "odd characters": ("PatientName", b"O'Neill-Smith^Ann (2nd) *", "O'Neill-Smith^Ann (2nd) *"),
}


@pytest.mark.parametrize("case", UNTIDY)
def test_what_means_nothing_is_emptied_and_the_rest_is_corrected(
    case: str, head_series: list[Dataset], tmp_path: Path
) -> None:
    keyword, value, expected = UNTIDY[case]
    made = objects(raw(head_series, **{keyword: value}), tmp_path)
    for one in made[:2]:
        assert str(one[keyword].value) == expected
    given = value.decode().strip()
    told = [line for line in made[2] if "does not follow DICOM" in line]
    if given == expected:
        assert told == []
        return
    (line,) = told
    assert f"does not follow DICOM in {keyword}: corrected, cut or empty in what is made of it" in line
    assert given not in line  # it may name the patient


CHARACTERS = {
    "a first value that is empty": (b"\\ISO 2022 IR 87", KANJI, KANJI.encode("iso2022_jp")),
    "utf-8 that is declared": (b"ISO_IR 192", KANJI, KANJI.encode()),
    "utf-8 that is not": (b"", "Müller^Jürgen", "Müller^Jürgen".encode()),
    "latin-1 that is not": (b"", "Müller^Jürgen", "Müller^Jürgen".encode("latin-1")),
    "latin-1 that is called utf-8": (b"ISO_IR 192", "Müller^Jürgen", "Müller^Jürgen".encode("latin-1")),
    "a set that does not exist": (b"ISO_IR 999", "Ærøskøbing^Søren", "Ærøskøbing^Søren".encode()),
    "a set that is misspelt": (b"ISO-IR 144", "Щукин^Юлия", "Щукин^Юлия".encode("iso8859_5")),
    "a name of Windows": (b"windows-1250", "Łukasz^Żak", "Łukasz^Żak".encode("cp1250")),
    "escapes without a set": (b"", KANJI, KANJI.encode("iso2022_jp")),
    "Korean": (b"\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동", b"Hong^Gildong=\x1b$)C\xfb\xf3^"
               b"\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHARACTERS)
def test_names_keep_their_characters(case: str, head_series: list[Dataset], tmp_path: Path) -> None:
    declared, name, value = CHARACTERS[case]
    segmentation, report, _ = objects(raw(head_series, SpecificCharacterSet=declared), tmp_path, value)
    assert [str(one.PatientName) for one in (segmentation, report)] == [name, name]
    assert segmentation.SpecificCharacterSet == report.SpecificCharacterSet == "ISO_IR 192"


def nested(one: Dataset) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.02", "none"
    one.ReferencedImageSequence = [item]


def many_orientations(series: list[Dataset]) -> list[Dataset]:
    """Write each slice's direction with its own rounding, as some scanners do."""
    for number, one in enumerate(series):
        one.ImageOrientationPatient = [round(float(value), 4 + number % 5) for value in one.ImageOrientationPatient]
    return series


UNUSED: dict[str, Callable[[list[Dataset]], object]] = {
    "an age": lambda series: raw(series, PatientAge=b"45"),
    "a weight": lambda series: raw(series, PatientWeight=b"20,8 kg"),
    "a long institution": lambda series: raw(series, InstitutionName=b"x" * 300),
    "uids that are none": lambda series: raw(series, InstanceCreatorUID=b"1.02.x", IrradiationEventUID=b"no"),
    "uids of others": lambda series: [nested(one) for one in series],
    "text as the series' number": lambda series: raw(series, SeriesNumber=b"five"),
    "two numbers of the series": lambda series: raw(series, SeriesNumber=b"5\\6"),
    "a number below 0": lambda series: raw(series, SeriesNumber=b"-5"),
    "a decimal comma": lambda series: raw(series, EchoTime=b"2,52", RepetitionTime=b"2000,0"),
    "a time of half its bytes": lambda series: raw(series, "FD", InversionTime=b"900"),
    "a representation that does not exist": lambda series: raw(series, "XX", PatientBirthDate=b"19500101"),
    "a name as binary": lambda series: raw(series, "UN", PatientName=b"Doe^Jane"),
    "no thickness": lambda series: [one.pop("SliceThickness") for one in series],
    "thickness as text": lambda series: raw(series, SliceThickness=b"3.6 mm", SpacingBetweenSlices=b"-1"),
    "directions of several precisions": many_orientations,
    "a series' date after that of its content": lambda series: raw(series, SeriesDate=b"29991231"),
    "lower case": lambda series: raw(series, ImageType=b"original\\primary", PatientPosition=b"hfs!"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_a_value_that_a_mask_does_not_need_never_decides(case: str, head_series: list[Dataset], tmp_path: Path) -> None:
    UNUSED[case](head_series)
    objects(head_series, tmp_path)


@pytest.mark.parametrize("value", [None, "", b"none"])
@pytest.mark.parametrize("frames", [False, True])
def test_without_a_frame_of_reference_there_is_a_mask_in_one_that_stays_the_same(
    frames: bool, value: bytes | str | None, head_series: list[Dataset], tmp_path: Path
) -> None:
    series = [enhanced(head_series)] if frames else head_series
    for one in series:
        del one.FrameOfReferenceUID
        if value is not None:
            one.FrameOfReferenceUID = ""
    series = raw(series, FrameOfReferenceUID=value) if isinstance(value, bytes) else series
    made = {objects(series, tmp_path / name)[0].FrameOfReferenceUID for name in ("a", "b")}
    assert len(made) == 1
    assert made.pop().is_valid


def test_what_the_first_slice_leaves_empty_is_taken_from_the_others(head_series: list[Dataset], tmp_path: Path) -> None:
    first, *others = head_series
    first.PatientID, first.PatientName, first.FrameOfReferenceUID = "", "", ""
    segmentation, report, _ = objects(head_series, tmp_path)
    assert segmentation.FrameOfReferenceUID == others[0].FrameOfReferenceUID
    for one in (segmentation, report):
        assert (one.PatientID, one.PatientName) == (others[0].PatientID, others[0].PatientName)


def test_a_multi_frame_object_may_be_untidy_too(head_series: list[Dataset], tmp_path: Path) -> None:
    whole = raw(
        [enhanced(head_series)], PatientBirthDate=b"1950", PatientAge=b"45", SpecificCharacterSet=b"\\ISO 2022 IR 87"
    )
    segmentation, _, _ = objects(whole, tmp_path)
    assert segmentation.PatientBirthDate == ""


def test_a_multi_frame_object_may_give_what_its_frames_share_with_each_frame(
    head_series: list[Dataset], tmp_path: Path
) -> None:
    whole = enhanced(head_series)
    (shared,) = whole.SharedFunctionalGroupsSequence
    for frame in whole.PerFrameFunctionalGroupsSequence:
        frame.update(shared)
    del whole.SharedFunctionalGroupsSequence
    objects([whole], tmp_path)


def test_positions_that_are_no_numbers_are_refused_in_a_sentence(head_series: list[Dataset], tmp_path: Path) -> None:
    for number, values in enumerate(({"PixelSpacing": b"3,4\\3,4"}, {"ImagePositionPatient": b"1\\2"})):
        folder = save(raw(head_series, **values), tmp_path / str(number))
        (volume,), _ = find_studies(find_dicom_files(folder, tmp_path / "results"), folder, tmp_path / "results")
        with pytest.raises(
            InputError, match=r"does not give the positions of its slices as numbers .*: export it again\."
        ):
            volume.prepare_source()


def test_the_command_segments_an_untidy_series_says_so_once_and_a_failure_names_no_mask_of_its_own(
    head_series: list[Dataset], tmp_path: Path
) -> None:
    """All of it at once, as a user starts it, and then a result that cannot be written."""
    series = raw(
        head_series,
        SpecificCharacterSet=b"\\ISO 2022 IR 87",
        PatientBirthDate=b"1950",
        StudyTime=b"07:42:24",
        PatientAge=b"45",
    )
    save_with(series, tmp_path / "scans", KANJI.encode("iso2022_jp"))
    words = [sys.executable, "-m", "scripts.segment", str(tmp_path / "scans")]
    options = ["--space=native", "--noprogress", "--workers=0"]

    def segment(output: Path) -> subprocess.CompletedProcess:
        run = [*words, str(output), *options]
        return subprocess.run(run, cwd=bundle_root(), capture_output=True, text=True, timeout=600, check=False)

    done = segment(tmp_path / "results")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    sentence = "does not follow DICOM in PatientBirthDate, StudyTime: corrected, cut or empty in what is made of it"
    assert done.stdout.count(sentence) == (tmp_path / "results" / "segment.log").read_text().count(sentence) == 1
    (segmentation,) = (tmp_path / "results").glob("*.dcm")
    assert str(valid(segmentation).PatientName) == KANJI

    blocked = tmp_path / "blocked"
    (blocked / "series-5_space-orig_label-L_desc-lesion_mask.dcm" / "in the way").mkdir(parents=True)
    assert segment(blocked).returncode == 1
    (record,) = (json.loads(file.read_text()) for file in (blocked / "records").glob("*.json"))
    assert record["status"] == "failed"
    assert "earlier mask" not in record["error"]
    assert not list(blocked.glob("*_mask.nii.gz"))
