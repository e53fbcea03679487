"""A series that is not a complete stack of slices is refused in one sentence; duplicate files are ignored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid

from bundle.dicom.files import find_dicom_files
from bundle.dicom.series import find_slices, read_series
from bundle.errors import InputError
from tests.dicom.scans import another, enhanced, save, turned

pytestmark = pytest.mark.dicom

Change = Callable[[list[Dataset]], list[Dataset]]


def changed(index: int, **values: object) -> Change:
    def change(series: list[Dataset]) -> list[Dataset]:
        for keyword, value in values.items():
            setattr(series[index], keyword, value)
        return series

    return change


def without(keyword: str) -> Change:
    def change(series: list[Dataset]) -> list[Dataset]:
        delattr(series[7], keyword)
        return series

    return change


def moved(series: list[Dataset]) -> list[Dataset]:
    """Move the last slice by 0.9 mm along the normal, a quarter of the distance."""
    row, column = np.array(series[-1].ImageOrientationPatient, dtype=float).reshape(2, 3)
    step = np.array(series[-1].ImagePositionPatient, dtype=float) - np.array(series[-2].ImagePositionPatient, float)
    normal = np.cross(row, column) * np.sign(np.cross(row, column) @ step)
    place = np.array(series[-1].ImagePositionPatient, dtype=float) + 0.9 * normal
    series[-1].ImagePositionPatient = place.round(6).tolist()
    return series


def echoes(series: list[Dataset]) -> list[Dataset]:
    second = another(series, 5, series[0].SeriesDescription, SeriesInstanceUID=series[0].SeriesInstanceUID)
    return [*series, *second]


def in_time(series: list[Dataset]) -> list[Dataset]:
    return [enhanced([*series, *series])]


def another_image(series: list[Dataset]) -> list[Dataset]:
    """Add a second image with the UID of the first."""
    (copy,) = another(series[3:4], 5, series[0].SeriesDescription, SeriesInstanceUID=series[0].SeriesInstanceUID)
    copy.SOPInstanceUID = series[0].SOPInstanceUID
    return [*series, copy]


def ct(series: list[Dataset]) -> list[Dataset]:
    return another(series, 5, "CT", Modality="CT", SOPClassUID=CTImageStorage)


BROKEN: dict[str, tuple[Change, str]] = {
    "one slice is missing": (lambda series: series[:20] + series[21:], "lacks 1 of 48 slices (3.60 mm apart)"),
    "seven are": (lambda series: series[:9] + series[12:30] + series[34:], "lacks 7 of 48 slices (3.60 mm"),
    "slices across": (lambda series: [*series[:40], *map(turned, series[40:])], "has slices in several directions"),
    "one uid, two images": (another_image, "has two different images of one UID: "),
    "two echoes": (echoes, "has 48 slices in the position of another: several echoes, time points or copies"),
    "frames in time": (in_time, "has 48 slices in the position of another"),
    "two multi-frame objects": (
        lambda series: [enhanced(series), enhanced(series)],
        "holds 2 objects, multi-frame ones among them",
    ),
    "a slice of another size": (changed(3, PixelSpacing=[1.0, 1.0]), "has slices of several sizes or frames of refere"),
    "rows differ": (changed(3, Rows=32), "has slices of several sizes or frames of reference"),
    "another frame": (
        changed(3, FrameOfReferenceUID=generate_uid()),
        "has slices of several sizes or frames of refere",
    ),
    "uneven slices": (moved, "has slices 3.60 to 4.50 mm apart: equal distances are expected"),
    "seven slices": (lambda series: series[:7], "has 7 slices: a head of at least 8 is expected"),
    "no place": (without("ImagePositionPatient"), "does not give the positions of its slices (ImagePositionPatient)"),
    "no rows": (without("Rows"), "does not give the positions of its slices (Rows)"),
    "no size": (without("PixelSpacing"), "does not give the positions of its slices (PixelSpacing)"),
    "another patient": (
        changed(3, PatientID="another"),
        "has slices of several patients, by their PatientID: a series of one patient is expected, export it again.",
    ),
    "another name": (changed(3, PatientName="Doe^Jane"), "has slices of several patients, by their PatientName: "),
    "a copy for another patient": (
        lambda series: [*series, *changed(0, PatientID="anon", PatientName="anon")(deepcopy(series[3:4]))],
        "has slices of several patients, by their PatientID and PatientName: ",
    ),
    "ct": (ct, "is of modality CT: MR is expected"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_series_is_refused_in_a_sentence(name: str, head_series: list[Dataset], tmp_path: Path) -> None:
    change, sentence = BROKEN[name]
    save(change(head_series), tmp_path / "scan")
    (series,), faults = read_series(find_dicom_files(tmp_path / "scan", tmp_path / "results"))
    assert faults == {}
    with pytest.raises(InputError) as told:
        find_slices(series)
    assert sentence in str(told.value)
    assert str(told.value).startswith(f"series 5 ({series.description}) in {tmp_path}/scan ")
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)


def test_a_patient_that_is_written_in_several_ways_is_one(head_series: list[Dataset], tmp_path: Path) -> None:
    ways: list[dict[str, object]] = [
        {"PatientID": " a1 ", "PatientName": "MÜLLER^JÜRGEN"},
        {"PatientID": "A1", "PatientName": "Müller^Jürgen^^=山田"},
        {"PatientID": "", "PatientName": None},
        {"PatientName": "Müller, Jürgen"},
    ]
    for one in head_series:
        one.PatientID, one.PatientName, one.SpecificCharacterSet = "A1", "Müller^Jürgen", "ISO_IR 192"
    for number, values in enumerate(ways):
        changed(number, **values)(head_series)
    del head_series[5].PatientID, head_series[5].PatientName
    save(head_series, tmp_path)
    declared = (tmp_path / "007.dcm").read_bytes()
    assert declared.count(b"ISO_IR 192") == 1
    (tmp_path / "007.dcm").write_bytes(declared.replace(b"ISO_IR 192", b"ISO_IR 100"))  # which is wrong
    (series,), _ = read_series(find_dicom_files(tmp_path, tmp_path / "results"))
    assert find_slices(series).shape == (48, 64, 64)


def test_a_copy_of_an_instance_counts_once(head_series: list[Dataset], tmp_path: Path) -> None:
    save(head_series, tmp_path / "scan")
    shutil.copytree(tmp_path / "scan", tmp_path / "scan" / "copy")
    (series,), _ = read_series(find_dicom_files(tmp_path, tmp_path / "results"))
    assert len(series.files) == 48
    assert find_slices(series).shape == (48, 64, 64)


def test_two_series_may_have_instances_of_the_same_uid(head_series: list[Dataset], tmp_path: Path) -> None:
    save(head_series, tmp_path / "a")
    for one in head_series:
        one.SeriesInstanceUID, one.SeriesNumber = f"{one.SeriesInstanceUID}.1", 9
    save(head_series, tmp_path / "b")
    found, faults = read_series(find_dicom_files(tmp_path, tmp_path / "results"))
    assert faults == {}
    assert [(series.number, len(series.files), series.folder.name) for series in found] == [
        ("5", 48, "a"),
        ("9", 48, "b"),
    ]


def test_slices_are_in_the_order_of_their_positions(head_series: list[Dataset], tmp_path: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(48)
    save([head_series[number] for number in shuffled], tmp_path)
    (series,), _ = read_series(find_dicom_files(tmp_path, tmp_path / "results"))
    slices = find_slices(series)
    # Rows run to the back and columns down, so that the normal points to the right; the scan began on the left.
    assert [int(shuffled[number]) for number in slices.order] == list(range(48))
    # Of the whole series' geometry: 4 times 0.9 mm from slice to slice, 4 times 0.859375 mm in it.
    assert np.linalg.norm(slices.affine[:3, :3], axis=0) == pytest.approx([3.6, 3.4375, 3.4375], abs=1e-3)


def test_damaged_files_are_reported_and_the_index_of_a_cd_is_ignored(
    head_series: list[Dataset], tmp_path: Path
) -> None:
    save(head_series, tmp_path)
    whole = (tmp_path / "000.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:700])
    (tmp_path / "nothing.dcm").write_bytes(whole[:132])
    index = head_series[0]
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=False)
    (series,), faults = read_series(find_dicom_files(tmp_path, tmp_path / "results"))
    assert len(series.files) == 48
    assert [file.name for file in faults] == ["cut.dcm", "nothing.dcm"]
    assert all("damaged DICOM file" in sentence and "\n" not in sentence for sentence in faults.values())
