"""The contents of DICOM files: studies, their series and the position of every slice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from bundle.dicom.headers import Patient, differences, drop_unreadable, read_dicom
from bundle.errors import InputError
from bundle.headers import check_slice_count

__all__ = ["MR_IMAGES", "Series", "Slices", "find_slices", "read_series"]

MR_IMAGES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
"""The SOP classes of objects that hold slices of an MR scan."""

_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_GRID = ("Rows", "Columns")
_SHARED = (*_GRID, "FrameOfReferenceUID")
_PLACE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_LENGTHS = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
_TAGS = [
    *(*_IDENTITY, "PatientID", "PatientName", *_SHARED, *_PLACE),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("Modality", "SeriesNumber", "SeriesDescription", "ProtocolName", "ImageType", "AngioFlag"),
    *("Manufacturer", "ContrastBolusAgent", "RepetitionTime", "EchoTime", "InversionTime"),
]
_WORDS = re.compile(
    r"[23]d|adc|angio|asl|ax(?:ial)?|bold|bravo|c|ce|contrast|cor(?:onal)?|ct|cube|den|diff|dixon|dti|dwi|epi|ffe|fgre"
    r"|flair|flash|f?se|f?spgr|gd|gre|head|images|inv[12]|iso|km|localizer|mp2?rage|mpr|mra|oblique|pd|perf|phase|plane"
    r"|post|pre|rage|sag(?:ittal)?|scout|sense|space|stir|survey|swi|t[12]w?|tfe|tof|tra|trace|tse|uni|vibe|water|without",
    re.IGNORECASE,
)
_SAME_DIRECTION = 1e-3
_SAME_MM = 0.01
_SAME_STEP = 0.05  # positions are text, and some scanners round them


@dataclass
class Series:
    """The instances of a series, each once.

    Args:
        study_uid: of the study.
        uid: of the series.
        files: of the instances.
        headers: of the instances, in the same order, without pixels.
        contradictions: copies of an instance that differ from it.
        patients: named in the headers of the instances and of their copies.
    """

    study_uid: str
    uid: str
    files: list[Path] = field(default_factory=list)
    headers: list[Dataset] = field(default_factory=list)
    contradictions: list[Path] = field(default_factory=list)
    patients: set[Patient] = field(default_factory=set)

    @property
    def number(self) -> str:
        """The scanner's number of the series; empty if it has none."""
        number = str(self.headers[0].get("SeriesNumber") or "")
        return number if number.isdecimal() else ""

    @property
    def description(self) -> str:
        """The words of the field in the scanner's name of the series, a free text that can name the patient."""
        header = self.headers[0]
        name = str(header.get("SeriesDescription") or header.get("ProtocolName") or "")
        return " ".join(word for word in re.findall(r"[^\W_]+", name) if _WORDS.fullmatch(word))

    @property
    def folder(self) -> Path:
        """The folder of its first file."""
        return self.files[0].parent

    def __str__(self) -> str:
        return f"series {self.number or self.uid}" + f" ({self.description})" * bool(self.description)


class Slices(NamedTuple):
    """The grid of a series: its slices along their common normal, in whatever order they were stored.

    Args:
        affine: from (slice, row, column) to mm in RAS, ``(4, 4)``.
        shape: slices, rows, columns.
        order: of the slices, as indices of the instances, or of the frames of a multi-frame one.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    order: list[int]


def _pixels(file: Path) -> bytes:
    return read_dicom(file).get("PixelData", b"")


def _read_header(file: Path) -> tuple[Dataset, Patient] | None:
    """Return the header of a file without its pixels and its patient, or None for the index of a CD (DICOMDIR).

    Raises:
        InputError: if it cannot be read, or does not say which instance of which series it is.
    """
    try:
        header = read_dicom(file, stop_before_pixels=True, specific_tags=_TAGS)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        patient = Patient.of(header)
        drop_unreadable(header)
        missing = [name for name in _IDENTITY if not header.get(name)]
    except Exception as error:  # pydicom raises errors of many kinds on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} is a damaged DICOM file ({reason}): copy or export it again.") from error
    if missing:
        raise InputError(f"{file} has no {missing[0]}: it is a damaged DICOM file, copy or export it again.")
    return header, patient


def read_series(files: Iterable[Path]) -> tuple[list[Series], dict[Path, str]]:
    """Sort DICOM files by study and series, by their headers.

    Args:
        files: from :func:`bundle.dicom.files.find_dicom_files`.

    Returns:
        the series, by study and number; and an error sentence for each file that cannot be read.
    """
    found: dict[str, Series] = {}
    first_files: dict[tuple[str, str], Path] = {}
    faults: dict[Path, str] = {}
    for file in files:
        try:
            read = _read_header(file)
        except InputError as fault:
            faults[file] = str(fault)
            continue
        if read is None:
            continue
        header, patient = read
        uid = str(header.SeriesInstanceUID)
        series = found.setdefault(uid, Series(str(header.StudyInstanceUID), uid))
        series.patients.add(patient)
        first = first_files.setdefault((uid, str(header.SOPInstanceUID)), file)
        if first is file:
            series.files.append(file)
            series.headers.append(header)
        elif _pixels(file) != _pixels(first):
            series.contradictions.append(file)
    return sorted(found.values(), key=lambda one: (one.study_uid, one.number.zfill(12), one.uid)), faults


def _frames(header: Dataset) -> Iterator[dict[str, Any]]:
    """Yield position, orientation and pixel spacing of each slice of an instance, by their DICOM keywords."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield {name: header.get(name) for name in _PLACE}
        return
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for frame in header.PerFrameFunctionalGroupsSequence:
        groups = {name: frame.get(group) or shared[0].get(group) or [Dataset()] for name, group in _PLACE.items()}
        yield {name: items[0].get(name) for name, items in groups.items()}


def _same(values: np.ndarray, tolerance: float) -> bool:
    """Return whether all rows are equal."""
    return bool(np.allclose(values, values[0], rtol=0, atol=tolerance))


def _check_instances(series: Series, where: str) -> None:
    if series.contradictions:
        raise InputError(
            f"{where} has two different images of one UID: {series.contradictions[0]} is not what it is a copy of; "
            "leave the right one."
        )
    if differing := differences(series.patients):
        raise InputError(
            f"{where} has slices of several patients, by their {' and '.join(differing)}: a series of one patient is "
            "expected, export it again."
        )
    modality = series.headers[0].get("Modality")
    if modality != "MR":
        raise InputError(f"{where} is of modality {modality}: MR is expected.")
    kinds = {UID(str(header.SOPClassUID)) for header in series.headers}  # a damaged one has several values
    if others := kinds.difference(MR_IMAGES):
        raise InputError(f"{where} holds {others.pop().name} objects: MR images are expected.")
    if len(series.headers) > 1 and kinds != {MRImageStorage}:
        raise InputError(
            f"{where} holds {len(series.headers)} objects, multi-frame ones among them: one volume is expected, in one "
            "of them or in single slices."
        )


def find_slices(series: Series) -> Slices:
    """Return the grid of the slices of a series.

    Raises:
        InputError: if it is not a stack of at least 8 parallel slices of equal size and distance, each once: it is a
            localizer, has several stacks, echoes or time points, lacks slices, or is of another modality.
    """
    where = f"{series} in {series.folder}"
    _check_instances(series, where)
    frames = [frame for header in series.headers for frame in _frames(header)]
    missing = sorted({name for frame in frames for name in _PLACE if frame[name] is None})
    missing += [name for name in _GRID if not all(header.get(name) for header in series.headers)]
    if missing:
        raise InputError(f"{where} does not give the positions of its slices ({', '.join(missing)}): export it again.")
    check_slice_count(where, len(frames))
    try:
        positions, orientations, sizes = (
            np.array([frame[name] for frame in frames], dtype=float)[:, range(length)] for name, length in _LENGTHS
        )
        shape = (len(frames), int(series.headers[0].Rows), int(series.headers[0].Columns))
    except (IndexError, TypeError, ValueError) as error:  # a decimal comma, for instance
        reason = f"does not give the positions of its slices as numbers ({', '.join(name for name, _ in _LENGTHS)})"
        raise InputError(f"{where} {reason}: export it again.") from error
    if not _same(orientations, _SAME_DIRECTION):
        raise InputError(f"{where} has slices in several directions: a localizer or several stacks, not one volume.")
    several = (len({str(header.get(name)) for header in series.headers if header.get(name)}) > 1 for name in _SHARED)
    if not _same(sizes, _SAME_MM) or any(several):
        raise InputError(f"{where} has slices of several sizes or frames of reference: one volume is expected.")
    along_row, along_column = orientations[0].reshape(2, 3)
    heights = positions @ np.cross(along_row, along_column)
    order = np.argsort(heights, kind="stable")
    _check_steps(where, heights[order])
    first, last = positions[order[[0, -1]]]
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        [(last - first) / (len(frames) - 1), along_column * sizes[0][0], along_row * sizes[0][1], first]
    )
    if abs(np.linalg.det(affine)) < _SAME_MM**3:
        raise InputError(f"{where} has slices of no size: its headers are damaged, export it again.")
    return Slices(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, shape, order.tolist())


def _check_steps(where: str, heights: np.ndarray) -> None:
    """Check that the distance from slice to slice is the same everywhere."""
    steps = np.diff(heights)
    repeated = steps <= _SAME_MM
    if repeated.any():
        raise InputError(
            f"{where} has {repeated.sum()} slices in the position of another: several echoes, time points or copies, "
            "one volume is expected."
        )
    step = float(np.median(steps))
    missing = (np.round(steps / step) - 1).clip(min=0).sum()
    if missing > 0:
        total = len(heights) + missing
        raise InputError(
            f"{where} lacks {missing:.0f} of {total:.0f} slices ({step:.2f} mm apart): send or copy it again."
        )
    if not np.allclose(steps, step, rtol=_SAME_STEP, atol=0):
        raise InputError(
            f"{where} has slices {steps.min():.2f} to {steps.max():.2f} mm apart: equal distances are expected."
        )
