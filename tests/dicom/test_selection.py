"""The T1w series is found among others, with a reason; a series that is not a stack of slices is never taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from bundle.dicom.files import find_dicom_files
from bundle.dicom.selection import Choice, choose_series
from bundle.dicom.series import read_series
from bundle.errors import InputError
from bundle.files import bundle_root
from tests.dicom.scans import another, save, turned

pytestmark = pytest.mark.dicom


def chosen(folder: Path, asked: str | None = None) -> Choice:
    series, faults = read_series(find_dicom_files(folder, folder / "results"))
    assert faults == {}
    return choose_series(series, asked)


def localizer(series: list[Dataset]) -> list[Dataset]:
    slices = another(series[:12], 1, "3-plane", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    return [*slices[:6], *(turned(one) for one in slices[6:])]


def test_the_t1w_series_before_contrast_is_taken_and_the_reasons_are_listed(
    head_series: list[Dataset], tmp_path: Path
) -> None:
    study = (
        head_series,
        localizer(head_series),
        another(head_series, 2, "AX T2 TSE", EchoTime=95, RepetitionTime=5000, InversionTime=None),
        another(head_series, 3, "AX unnamed", EchoTime=95, RepetitionTime=5000, InversionTime=None),
        another(head_series, 4, "SAG DARK-FLUID", EchoTime=120, InversionTime=2200),
        another(head_series, 6, "SAG MPRAGE", ContrastBolusAgent="Gadovist"),
        another(head_series[::2], 7, "T1 3 mm"),
        another(head_series, 8, "TOF_3D", EchoTime=3.6, RepetitionTime=21, InversionTime=None),
        another(head_series[:3], 9, "SCREEN", SOPClassUID=SecondaryCaptureImageStorage),
        another(head_series, 10, "T1 MPR", ImageType=["DERIVED", "SECONDARY", "MPR"]),
    )
    for number, series in enumerate(study):
        save(series, tmp_path / str(number))
    choice = chosen(tmp_path)
    assert choice.series.number == "5"
    assert choice.lines() == [
        "taken: series 5 (SAG MPRAGE): T1w, 48 slices of 3.6 mm",
        f"passed over: series 1 (plane): series 1 (plane) in {tmp_path}/1 has slices in several directions: a "
        "localizer or several stacks, not one volume.",
        "passed over: series 2 (AX T2 TSE): its name says 'T2'",
        "passed over: series 3 (AX): its echo time is 95 ms, 15 or less are T1w",
        "passed over: series 4 (SAG): its name says 'DARK-FLUID'",
        "passed over: series 8 (TOF 3D): its name says 'TOF'",
        "passed over: series 9: it holds Secondary Capture Image Storage",
        "passed over: series 10 (T1 MPR): its images are of type MPR",
        "passed over: series 7 (T1): T1w too, but 24 slices of 7.2 mm",
        "passed over: series 6 (SAG MPRAGE): T1w too, but 48 slices of 3.6 mm, after contrast",
    ]


GE = {"EchoTime": 3.1, "RepetitionTime": 8.2, "InversionTime": 450}
PHILIPS = {"EchoTime": 3.7, "RepetitionTime": 8.1, "InversionTime": None}
SPIN_ECHO = {"EchoTime": 12, "RepetitionTime": 550, "InversionTime": None}
LONG = {"EchoTime": 9, "RepetitionTime": 2500, "InversionTime": None}


@pytest.mark.parametrize(
    ("description", "changes", "reason"),
    [
        ("Ax 3D BRAVO", GE, ""),
        ("sT1W_3D_TFE SENSE", PHILIPS, ""),
        ("t1_se_tra", SPIN_ECHO, ""),
        ("without a name for it", SPIN_ECHO, ""),
        ("T1 FLAIR", {"EchoTime": 9, "RepetitionTime": 2000, "InversionTime": 860}, ""),
        ("MPRAGE without contrast", {}, ""),
        ("without a name for it", LONG, "its repetition time is 2500 ms without inversion, 1000 or less are T1w"),
        ("PD", LONG, "its name says 'PD'"),
        ("FLAIR", {"EchoTime": 9}, "its name says 'FLAIR'"),
        ("T1 of all names", {"EchoTime": 90}, "its echo time is 90 ms, 15 or less are T1w"),
        ("t1 space", {"InversionTime": 1800}, "its inversion time is 1800 ms, 300 to 1400 are T1w"),
        ("ep2d_diff_3scan_trace", {}, "its name says 'diff'"),
        ("without a name for it", {"EchoTime": None}, "neither its name nor its echo and repetition times say that"),
        ("MPRAGE", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "its images are of type P"),
        ("head", {"AngioFlag": "Y"}, "it is an angiography"),
        ("CT head", {"Modality": "CT", "SOPClassUID": CTImageStorage}, "it holds CT Image Storage"),
    ],
)
def test_names_and_times_of_many_scanners_are_recognised(
    description: str, changes: dict, reason: str, head_series: list[Dataset], tmp_path: Path
) -> None:
    save(another(head_series, 3, description, **changes), tmp_path)
    if not reason:
        assert chosen(tmp_path).series.number == "3"
        return
    said = (
        re.escape(f"{tmp_path} holds no T1w series (series 3") + f".*: {re.escape(reason)}" + r".*\): name one with --s"
    )
    with pytest.raises(InputError, match=said):
        chosen(tmp_path)


def test_the_series_that_is_asked_for_is_taken_by_number_or_uid(head_series: list[Dataset], tmp_path: Path) -> None:
    flair = another(head_series, 12, "FLAIR")
    save(head_series, tmp_path / "a")
    save(flair, tmp_path / "b")
    for asked in ("12", str(flair[0].SeriesInstanceUID)):
        choice = chosen(tmp_path, asked)
        assert choice.series.description == "FLAIR"
        assert choice.lines()[1] == "passed over: series 5 (SAG MPRAGE): another was asked for"
    with pytest.raises(InputError, match=r"holds no series 7: there are series 5 \(SAG MPRAGE\); series 12"):
        chosen(tmp_path, "7")
    save(another(head_series, 12, "T1"), tmp_path / "c")
    with pytest.raises(InputError, match=r"holds 2 series 12: name one by its SeriesInstanceUID\.$"):
        chosen(tmp_path, "12")


ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
    for line in (Path(bundle_root()) / "docs" / "series.md").read_text().splitlines()
    if re.match(r"\| \w.* / .* / .* \|( \d+)? \|$", line)
]


def of_row(series: list[Dataset], maker: str, name: str, times: str, header: str) -> list[Dataset]:
    """Return a series with the header of a row of the table."""
    manufacturer = {"GE": "GE MEDICAL SYSTEMS", "any": "SIEMENS"}.get(maker.split()[0], maker.split()[0])
    values: dict[str, object] = {"Manufacturer": manufacturer, "ProtocolName": "head", "ContrastBolusAgent": None}
    for keyword, time in zip(("EchoTime", "RepetitionTime", "InversionTime"), times.split(" / "), strict=True):
        values[keyword] = None if time == "-" else float(time)
    keyword, _, value = header.partition(" ")
    if keyword:
        values[keyword] = value.split("\\") if keyword == "ImageType" else value
    return another(series, 3, name, **values)


def test_the_table_has_rows_of_all_makers() -> None:
    assert len(ROWS) >= 60
    assert {row[0] for row in ROWS} >= {"Siemens", "GE", "Philips", "Canon", "Hitachi", "Siemens MP2RAGE", "GE Dixon"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]} {row[3]}")
def test_every_row_of_the_table_of_names_happens(row: list[str], head_series: list[Dataset], tmp_path: Path) -> None:
    *given, happens, _ = row
    save(of_row(head_series, *given), tmp_path)
    if not happens.startswith("T1w"):
        with pytest.raises(InputError, match=rf"\(series 3.*: {re.escape(happens)}"):
            chosen(tmp_path)
        return
    _, *details = happens.split(", ")
    assert chosen(tmp_path).reason == ", ".join(["T1w", "48 slices of 3.6 mm", *details])


UNI, DENOISED = "t1_mp2rage_sag_p3_UNI_Images", "t1_mp2rage_sag_p3_UNI-DEN"


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("t1_mp2rage_INV1", "t1_mp2rage_INV2", DENOISED, UNI), UNI),
        (("anat_inv-1_MP2RAGE", "anat_inv-2_MP2RAGE", UNI), UNI),
        (("MP2RAGE INV 1", DENOISED), DENOISED),
        ((DENOISED, UNI, "t1_mprage_sag"), "t1_mprage_sag"),
        (("t1_vibe_dixon_W", "t1_vibe_dixon_F", "t1_vibe_dixon_in", "t1_vibe_dixon_opp"), "t1_vibe_dixon_in"),
        (("WATER: Ax T1", "FAT: Ax T1", "OutPhase: Ax T1"), "WATER: Ax T1"),
        (("T1 post Gd", "T1 pre Gd"), "T1 pre Gd"),
        (("MPRAGE mit KM", "MPRAGE nativ"), "MPRAGE nativ"),
        (("T1 3D +gad", "T1 3D"), "T1 3D"),
        (("T1 apres contraste", "T1 sans contraste"), "T1 sans contraste"),
        (("T1 preop +C", "T1 preop"), "T1 preop"),
    ],
)
def test_of_several_t1w_series_the_plainest_is_taken(
    names: tuple[str, ...], taken: str, head_series: list[Dataset], tmp_path: Path
) -> None:
    for number, name in enumerate(names, start=1):
        kinds = ["DERIVED", "PRIMARY", "M", "UNI"] if "UNI" in name else ["ORIGINAL", "PRIMARY", "M", "ND"]
        save(another(head_series, number, name, InversionTime=None, ImageType=kinds), tmp_path / str(number))
    assert chosen(tmp_path).series.number == str(names.index(taken) + 1)


def test_the_inversions_of_mp2rage_are_never_taken_by_themselves(head_series: list[Dataset], tmp_path: Path) -> None:
    for number in (1, 2):
        save(another(head_series, number, f"t1_mp2rage_INV{number}", InversionTime=700), tmp_path / str(number))
    with pytest.raises(InputError, match=r"holds no T1w series .*its name says 'INV1'.*name one with --series"):
        chosen(tmp_path)
