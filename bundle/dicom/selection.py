"""Which series of a study is the T1w one, by rules that a reader of the log can follow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pydicom.dataset import Dataset

from bundle.dicom.series import MR_IMAGES, Series, Slices, find_slices
from bundle.errors import InputError

__all__ = ["Choice", "choose_series"]

_LONGEST_TE_MS = 15.0  # T1w scans have 2 to 14, all others that are no T1w and have less are told by their names
_LONGEST_TR_MS = 1000.0  # of a spin echo without inversion
_T1_TI_MS = (300.0, 1400.0)  # fluid is nulled from 1700 on

_IS_T1 = re.compile(r"t1|mp_?2?rage|bravo|f?spgr|\btfl3d|\btfe\b|\bvibe\b", re.IGNORECASE)
_IS_OTHER = re.compile(
    r"t2|\bpd\b|dwi|dti|diff|adc\b|trace|swi\b|swan|tof\b|angio|\bmra\b|mrv\b|bold|fmri|epi\b|perf|asl\b|field|\bb0\b"
    r"|dark.?fluid|ciss|fiesta|\bloc|scout|survey|map\b",
    re.IGNORECASE,
)
_IS_FLAIR = re.compile(r"flair", re.IGNORECASE)
_IS_ENHANCED = re.compile(
    r"\+ ?c\b|\bgd\b|gado|\bpost\b|\bkm\b|(?<!w/o )(?<!without )(?<!no )(?<!non )(?<!pre )contrast", re.IGNORECASE
)
_OTHER_IMAGES = (
    *("LOCALIZER", "ADC", "FA", "TRACEW", "PHASE", "P", "MPR", "MIP", "PROJECTION IMAGE", "SCREEN SAVE"),
    *("SUBTRACTION", "T1 MAP", "T2 MAP", "PERFUSION"),
)


class Choice(NamedTuple):
    """What became of the series of a study.

    Args:
        series: the one that is taken.
        slices: its grid.
        reason: why it was.
        passed: the others, each with the reason.
    """

    series: Series
    slices: Slices
    reason: str
    passed: list[tuple[Series, str]]

    def lines(self) -> list[str]:
        """For people: the series that is taken, and those that are passed over."""
        return [
            f"taken: {self.series}: {self.reason}",
            *(f"passed over: {series}: {reason}" for series, reason in self.passed),
        ]


def _number(header: Dataset, name: str) -> float | None:
    try:
        return float(header.get(name))
    except (TypeError, ValueError):
        return None


def _why_not_t1(header: Dataset) -> str:
    """Why a series is no T1w one, by its image type, its name, and its times; empty when it is one."""
    kinds = [kind for kind in header.get("ImageType") or () if kind in _OTHER_IMAGES]
    if kinds:
        return f"its images are of type {kinds[0]}"
    if header.get("AngioFlag") == "Y":
        return "it is an angiography"
    name = " ".join(str(header.get(field) or "") for field in ("SeriesDescription", "ProtocolName")).replace("_", " ")
    if other := _IS_OTHER.search(name):
        return f"its name says {other[0]!r}"
    named = _IS_T1.search(name)
    if (flair := _IS_FLAIR.search(name)) and not named:
        return f"its name says {flair[0]!r}"
    return _why_not_by_times(header, bool(named))


def _why_not_by_times(header: Dataset, named: bool) -> str:
    te, tr, ti = (_number(header, name) for name in ("EchoTime", "RepetitionTime", "InversionTime"))
    if te is not None and te > _LONGEST_TE_MS:
        return f"its echo time is {te:g} ms, {_LONGEST_TE_MS:g} or less are T1w"
    if ti and not _T1_TI_MS[0] <= ti <= _T1_TI_MS[1]:
        return f"its inversion time is {ti:g} ms, {_T1_TI_MS[0]:g} to {_T1_TI_MS[1]:g} are T1w"
    if named:
        return ""
    if te is None or tr is None:
        return "neither its name nor its echo and repetition times say that it is T1w"
    if not ti and tr > _LONGEST_TR_MS:
        return f"its repetition time is {tr:g} ms without inversion, {_LONGEST_TR_MS:g} or less are T1w"
    return ""


def _is_enhanced(header: Dataset) -> bool:
    """Whether contrast agent was given."""
    name = f"{header.get('SeriesDescription') or ''} {header.get('ProtocolName') or ''}".replace("_", " ")
    return bool(header.get("ContrastBolusAgent")) or bool(_IS_ENHANCED.search(name))


def _thickness_mm(slices: Slices) -> float:
    return float((slices.affine[:3, 0] ** 2).sum() ** 0.5)


def _preference(series: Series, slices: Slices) -> tuple[tuple[bool, bool, float, int], str]:
    """The smaller, the better; and what it says in words."""
    header = series.headers[0]
    enhanced, derived = _is_enhanced(header), "DERIVED" in (header.get("ImageType") or ())
    thickness = round(_thickness_mm(slices), 2)
    told = f"{slices.shape[0]} slices of {thickness:g} mm" + ", after contrast" * enhanced + ", derived" * derived
    return (enhanced, derived, thickness, -slices.shape[0]), told


def _asked_for(study: Sequence[Series], asked: str) -> Choice:
    """The series that a user named, whatever its name and times say."""
    named = [series for series in study if asked in (series.uid, series.number)]
    listed = "; ".join(map(str, study))
    if not named:
        raise InputError(f"{study[0].folder} holds no series {asked}: there are {listed}.")
    if len(named) > 1:
        raise InputError(f"{study[0].folder} holds {len(named)} series {asked}: name one by its SeriesInstanceUID.")
    passed = [(series, "another was asked for") for series in study if series is not named[0]]
    return Choice(named[0], find_slices(named[0]), "it was asked for", passed)


def choose_series(study: Sequence[Series], asked: str | None = None) -> Choice:
    """Takes the T1w series of a study: before contrast, as it was scanned, of the thinnest slices, of the most.

    A series is T1w when it is MR, neither its image type nor its name says something else, its echo time is at most
    15 ms, its inversion time, if any, 300 to 1400 ms, and its name says so or its repetition time without inversion is
    at most 1000 ms. One that is no whole stack of slices is passed over.

    Args:
        study: its series.
        asked: the number or the UID of the series that is taken whatever these rules say of it.

    Raises:
        InputError: when there is none, or the one that was asked for is no stack of slices.
    """
    if asked is not None:
        return _asked_for(study, asked)
    candidates, passed = [], []
    broken: list[InputError] = []
    for series in study:
        header = series.headers[0]
        images = header.get("Modality") == "MR" and header.SOPClassUID in MR_IMAGES
        reason = _why_not_t1(header) if images else f"it holds {header.SOPClassUID.name}"
        if not reason:
            try:
                candidates.append((series, find_slices(series)))
                continue
            except InputError as fault:
                broken.append(fault)
                reason = str(fault)
        passed.append((series, reason))
    if not candidates:
        if len(broken) == 1:
            raise broken[0]
        listed = "; ".join(f"{series}: {reason}" for series, reason in passed)
        raise InputError(f"{study[0].folder} holds no T1w series ({listed}): name one with --series if it does.")
    candidates.sort(key=lambda candidate: _preference(*candidate)[0])
    (series, slices), others = candidates[0], candidates[1:]
    told = _preference(series, slices)[1]
    passed += [(other, f"T1w too, but {_preference(other, grid)[1]}") for other, grid in others]
    return Choice(series, slices, f"T1w, {told}", passed)
