"""Selection of the T1w series of a study, by rules that are written to the log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from bundle.dicom.series import MR_IMAGES, Series, Slices, find_slices
from bundle.errors import InputError

__all__ = ["Choice", "choose_series"]

_MAX_TE_MS = 15.0  # T1w scans have 2 to 14; other scans with less are recognised by their names
_MAX_TR_MS = 1000.0  # of a spin echo without inversion
_T1_TI_MS = (300.0, 1400.0)  # fluid is nulled from 1700

_IS_T1 = re.compile(
    r"t1|mp[ -]?2?[ -]?rage|bravo|f?spgr|\btfl3d|\btfe\b|\bvibe\b|\buni[ -]?(?:images|den)\b", re.IGNORECASE
)
_IS_OTHER = re.compile(
    r"t2|\bpd\b|dwi|dti|diff|adc\b|trace|swi\b|swan|tof\b|angio|\bmra\b|mrv\b|bold|fmri|epi\b|perf|asl\b|field|\bb0\b"
    r"|dark.?fluid|ciss|fiesta|stir\b|\bdir\b|fgatir|phase.?contrast|\bloc|scout|survey|screen|\bm(?:in)?ip\b"
    r"|map(?:s|ping)?\b|t1[ -]?images|t1 ?rho|\binv[ -]?[12]\b|\bmpr range"
    r"|dixon(?=.*\b(?:f|fat|opp|op|out)\b)|\b(?:fat|out-?phase) ?:",
    re.IGNORECASE,
)
_IS_FLAIR = re.compile(r"flair", re.IGNORECASE)
_AGENT = r"(?:gd|gad\w*|km|kontrast\w*|contrast\w*|ce|c|mdc|dotarem|magnevist|multihance|omniscan|prohance|clariscan)\b"
_IS_ENHANCED = re.compile(
    rf"\+ ?c\b|\bc ?\+|t1w? ?{_AGENT}|\b(?!c\b){_AGENT}|\benhanced\b"
    r"|\bpost(?:contrast|gad\w*|gd|km)?\b(?![ -]?(?:fossa|op|surg|stroke|treat))",
    re.IGNORECASE,
)
_IS_PLAIN = re.compile(
    rf"\b(?:without|w/?o|no|non|pre|ohne|vor|sans|avant|senza|sin)[ -]?(?:iv )?{_AGENT}"
    r"|\bpre\b(?![ -]?(?:op|surg|treat))|\bw/?o$|\bnativ|\bunenhanced",
    re.IGNORECASE,
)
_NO_AGENT = ("", "NO", "NONE", "N/A", "NA", "-", "0")
_IS_SECOND_CHOICE = re.compile(r"\buni[ -]?den\b|dixon.*\b(?:w|water)\b|\bwater ?:", re.IGNORECASE)
_OTHER_IMAGES = (
    *("LOCALIZER", "ADC", "FA", "TRACEW", "PHASE", "P", "MPR", "MIP", "PROJECTION IMAGE", "SCREEN SAVE"),
    *("SUBTRACTION", "T1 MAP", "T2 MAP", "PERFUSION", "REFORMATTED", "MIN IP", "MNIP"),
    *("F", "FAT", "OPP_PHASE", "OUT_PHASE", "OPPOSED_PHASE"),
)


class Choice(NamedTuple):
    """The series that is taken of a study, and the others.

    Args:
        series: the one that is taken.
        slices: its grid.
        reason: why it is taken.
        passed: the others, each with the reason why it is passed over.
    """

    series: Series
    slices: Slices
    reason: str
    passed: list[tuple[Series, str]]

    def lines(self) -> list[str]:
        """Return a line for each series of the study, for the log."""
        passed = [f"passed over: {series}: {reason}" for series, reason in self.passed]
        return [f"taken: {self.series}: {self.reason}", *passed]


def _number(header: Dataset, name: str) -> float | None:
    try:
        return float(str(header.get(name)).replace(",", "."))
    except (TypeError, ValueError):
        return None


def _names(header: Dataset) -> str:
    """Return the name of a series, and that of its protocol if the first does not say what it is.

    GE's ``ProtocolName`` is that of the whole examination.
    """
    name, protocol = (
        str(header.get(keyword) or "").replace("_", " ") for keyword in ("SeriesDescription", "ProtocolName")
    )
    said = any(kind.search(name) for kind in (_IS_T1, _IS_OTHER, _IS_FLAIR))
    return name if said or str(header.get("Manufacturer")).upper().startswith("GE") else f"{name} {protocol}"


def _kinds(header: Dataset) -> list[str]:
    kinds = header.get("ImageType") or ()
    return [kinds] if isinstance(kinds, str) else [str(kind) for kind in kinds]


def _why_not_t1(header: Dataset) -> str:
    """Return why a series is not T1w, by its image type and its name, then by its times; empty if it is T1w."""
    if header.get("Modality") != "MR" or header.SOPClassUID not in MR_IMAGES:
        return f"it holds {UID(str(header.SOPClassUID)).name}"
    kinds = [kind for kind in _kinds(header) if kind in _OTHER_IMAGES]
    if kinds:
        return f"its images are of type {kinds[0]}"
    if header.get("AngioFlag") == "Y":
        return "it is an angiography"
    names = _names(header)
    named = _IS_T1.search(names)
    if other := _IS_OTHER.search(names) or (not named and _IS_FLAIR.search(names)):
        return f"its name says {other[0]!r}"
    return _why_not_by_times(header, bool(named))


def _why_not_by_times(header: Dataset, named: bool) -> str:
    te, tr, ti = (_number(header, name) for name in ("EchoTime", "RepetitionTime", "InversionTime"))
    if te is not None and te > _MAX_TE_MS:
        return f"its echo time is {te:g} ms, {_MAX_TE_MS:g} or less are T1w"
    if ti and not _T1_TI_MS[0] <= ti <= _T1_TI_MS[1]:
        return f"its inversion time is {ti:g} ms, {_T1_TI_MS[0]:g} to {_T1_TI_MS[1]:g} are T1w"
    if named:
        return ""
    if te is None or tr is None:
        return "neither its name nor its echo and repetition times say that it is T1w"
    if not ti and tr > _MAX_TR_MS:
        return f"its repetition time is {tr:g} ms without inversion, {_MAX_TR_MS:g} or less are T1w"
    return ""


def _is_enhanced(header: Dataset) -> bool:
    """Return whether a contrast agent was given; a name that denies it is right: agents are noted for whole studies."""
    names = _names(header)
    agent = str(header.get("ContrastBolusAgent") or "").strip().upper() not in _NO_AGENT
    return not _IS_PLAIN.search(names) and bool(agent or _IS_ENHANCED.search(names))


def _preference(series: Series, slices: Slices) -> tuple[tuple[bool, bool, bool, float, int], str]:
    """Return the key that sorts the preferred series first, and the same in words."""
    header = series.headers[0]
    enhanced, second = _is_enhanced(header), bool(_IS_SECOND_CHOICE.search(_names(header)))
    derived = "DERIVED" in _kinds(header)
    count, thickness_mm = slices.shape[0], round(float(np.linalg.norm(slices.affine[:3, 0])), 2)
    words = f"{count} slices of {thickness_mm:g} mm" + ", after contrast" * enhanced + ", derived" * derived
    return (enhanced, second, derived, thickness_mm, -count), words


def _asked_for(study: Sequence[Series], asked: str) -> Choice:
    """Return the series that a user named, whatever its name and times say."""
    named = [series for series in study if asked in (series.uid, series.number)]
    folder = study[0].folder
    if not named:
        raise InputError(f"{folder} holds no series {asked}: there are {'; '.join(map(str, study))}.")
    if len(named) > 1:
        raise InputError(f"{folder} holds {len(named)} series {asked}: name one by its SeriesInstanceUID.")
    passed = [(series, "another was asked for") for series in study if series is not named[0]]
    return Choice(named[0], find_slices(named[0]), "it was asked for", passed)


def choose_series(study: Sequence[Series], asked: str | None = None) -> Choice:
    """Choose the T1w series of a study: preferably before contrast, not derived, with the thinnest and most slices.

    A series is T1w if it is MR, neither its image type nor its name says otherwise, its echo time is at most 15 ms, its
    inversion time, if any, is 300 to 1400 ms, and its name says T1w or its repetition time without inversion is at most
    1000 ms. Of MP2RAGE, the uniform image comes before the denoised one and the inversions are passed over; of Dixon,
    the images in phase come before water, and the others are passed over. A series that is not a complete stack of
    slices is passed over.

    Args:
        study: its series.
        asked: the number or the UID of the series to take, whatever these rules say of it.

    Raises:
        InputError: if there is none, or the one that was asked for is not a stack of slices.
    """
    if asked is not None:
        return _asked_for(study, asked)
    candidates, passed, broken = [], list[tuple[Series, str]](), list[InputError]()
    for series in study:
        if reason := _why_not_t1(series.headers[0]):
            passed.append((series, reason))
            continue
        try:
            slices = find_slices(series)
            candidates.append((*_preference(series, slices), series, slices))
        except InputError as fault:
            broken.append(fault)
            passed.append((series, str(fault)))
    if not candidates:
        if len(broken) == 1:
            raise broken[0]
        listed = "; ".join(f"{series}: {reason}" for series, reason in passed)
        raise InputError(f"{study[0].folder} holds no T1w series ({listed}): name one with --series if it does.")
    (_, words, taken, slices), *others = sorted(candidates, key=lambda candidate: candidate[0])
    passed += [(other, f"T1w too, but {theirs}") for _, theirs, other, _ in others]
    return Choice(taken, slices, f"T1w, {words}", passed)
