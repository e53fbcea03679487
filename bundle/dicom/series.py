"""What is in DICOM files: studies, their series and the place of every slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from bundle.checks import check_slice_count
from bundle.errors import InputError

__all__ = ["MR_IMAGES", "Series", "Slices", "find_slices", "read_series"]

MR_IMAGES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
"""The kinds of objects that hold slices of an MR scan."""

_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "SeriesNumber", "SeriesDescription", "ProtocolName", "ImageType", "InstanceNumber", "AngioFlag"),
    *("ContrastBolusAgent", "MRAcquisitionType", "ScanningSequence", "SequenceName", "PulseSequenceName"),
    *("RepetitionTime", "EchoTime", "InversionTime", "EffectiveEchoTime", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_PLACE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
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
        contradictions: instances whose copies differ from each other.
    """

    study_uid: str
    uid: str
    files: list[Path] = field(default_factory=list)
    headers: list[Dataset] = field(default_factory=list)
    contradictions: list[Path] = field(default_factory=list)

    @property
    def number(self) -> str:
        """As the scanner counted it; empty where it did not."""
        return str(self.headers[0].get("SeriesNumber") or "")

    @property
    def description(self) -> str:
        """What the scanner's operator called it."""
        header = self.headers[0]
        return str(header.get("SeriesDescription") or header.get("ProtocolName") or "no description")

    @property
    def folder(self) -> Path:
        """Where its first file lies."""
        return self.files[0].parent

    def __str__(self) -> str:
        return f"series {self.number or self.uid} ({self.description})"


class Slices(NamedTuple):
    """The grid of a series: its slices along their common normal, whatever order they were stored in.

    Args:
        affine: from (slice, row, column) to mm in RAS, ``(4, 4)``.
        shape: slices, rows, columns.
        order: of the slices, as numbers of the instances, or of the frames of a multi-frame one.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    order: list[int]


def _pixels(file: Path) -> bytes:
    return pydicom.dcmread(file).get("PixelData", b"")


def _read_header(file: Path) -> Dataset | None:
    """What a file says of itself without its pixels; None for the index of a CD (DICOMDIR).

    Raises:
        InputError: when it cannot be read, or does not say which instance of which series it is.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        missing = [name for name in _IDENTITY if not header.get(name)]
    except Exception as error:  # whatever a damaged file makes a reader raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} is a damaged DICOM file ({reason}): copy or export it again.") from error
    if missing:
        raise InputError(f"{file} has no {missing[0]}: it is a damaged DICOM file, copy or export it again.")
    return header


def read_series(files: Iterable[Path]) -> tuple[list[Series], dict[Path, str]]:
    """Sorts DICOM files by study and series, by their headers.

    Args:
        files: of :func:`bundle.dicom.files.find_dicom_files`.

    Returns:
        the series, by study and number; and a sentence on each file that cannot be read.
    """
    found: dict[str, Series] = {}
    places: dict[str, int] = {}
    faults: dict[Path, str] = {}
    for file in files:
        try:
            header = _read_header(file)
        except InputError as fault:
            faults[file] = str(fault)
            continue
        if header is None:
            continue
        uid, instance = str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
        series = found.setdefault(uid, Series(str(header.StudyInstanceUID), uid))
        if instance not in places:
            places[instance] = len(series.files)
            series.files.append(file)
            series.headers.append(header)
        elif _pixels(file) != _pixels(series.files[places[instance]]):
            series.contradictions.append(file)
    return sorted(found.values(), key=lambda one: (one.study_uid, one.number.zfill(12), one.uid)), faults


def _frames(header: Dataset) -> Iterator[dict[str, Any]]:
    """Position, orientation and voxel size of each slice of an instance, as the standard's names."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield {name: header.get(name) for name in _PLACE}
        return
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for frame in header.PerFrameFunctionalGroupsSequence:
        place = {}
        for name, group in _PLACE.items():
            items = frame.get(group) or shared[0].get(group) or [Dataset()]
            place[name] = items[0].get(name)
        yield place


def _only(values: np.ndarray, tolerance: float) -> bool:
    """Whether all rows are the first."""
    return bool(np.allclose(values, values[0], rtol=0, atol=tolerance))


def _check_instances(series: Series) -> None:
    header = series.headers[0]
    if series.contradictions:
        raise InputError(
            f"{series} in {series.folder} has two different images of one UID: {series.contradictions[0]} is not what "
            "it is a copy of; leave the right one."
        )
    if header.get("Modality") != "MR":
        raise InputError(f"{series} in {series.folder} is of modality {header.get('Modality')}: MR is expected.")
    kinds = {one.SOPClassUID for one in series.headers}
    if not kinds <= set(MR_IMAGES):
        name = next(iter(kinds - set(MR_IMAGES))).name
        raise InputError(f"{series} in {series.folder} holds {name} objects: MR images are expected.")
    if len(kinds) > 1 or (len(series.headers) > 1 and MRImageStorage not in kinds):
        raise InputError(
            f"{series} in {series.folder} holds {len(series.headers)} objects, multi-frame ones among them: one volume "
            "is expected, in one of them or in single slices."
        )


def find_slices(series: Series) -> Slices:
    """The grid that the slices of a series make up.

    Raises:
        InputError: when it is no stack of at least 8 parallel slices of equal size and distance, each there once: a
            localizer, several stacks, echoes or time points, missing slices, another modality.
    """
    _check_instances(series)
    where = f"{series} in {series.folder}"
    frames = [frame for header in series.headers for frame in _frames(header)]
    missing = sorted({name for frame in frames for name in _PLACE if frame[name] is None})
    missing += [name for name in ("FrameOfReferenceUID", "Rows", "Columns") if not series.headers[0].get(name)]
    if missing:
        raise InputError(f"{where} does not say where its slices lie ({', '.join(missing)}): export it again.")
    check_slice_count(where, len(frames))
    positions, orientations, sizes = (np.array([frame[name] for frame in frames], dtype=float) for name in _PLACE)
    if not _only(orientations, _SAME_DIRECTION):
        raise InputError(f"{where} has slices in several directions: a localizer or several stacks, no single volume.")
    grids = {(one.Rows, one.Columns, one.FrameOfReferenceUID) for one in series.headers}
    if not _only(sizes, _SAME_MM) or len(grids) > 1:
        raise InputError(f"{where} has slices of several sizes or frames of reference: one volume is expected.")
    along_row, along_column = orientations[0][:3], orientations[0][3:]
    heights = positions @ np.cross(along_row, along_column)
    order = np.argsort(heights, kind="stable")
    step = _step(where, heights[order])
    affine = np.eye(4)
    affine[:3, 0] = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
    affine[:3, 1], affine[:3, 2] = along_column * sizes[0][0], along_row * sizes[0][1]
    affine[:3, 3] = positions[order[0]]
    if step < _SAME_MM or abs(np.linalg.det(affine)) < _SAME_MM**3:
        raise InputError(f"{where} has slices of no size: its headers are damaged, export it again.")
    shape = (len(frames), int(series.headers[0].Rows), int(series.headers[0].Columns))
    return Slices(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, shape, order.tolist())


def _step(where: str, heights: np.ndarray) -> float:
    """The distance from slice to slice, when it is the same all along."""
    steps = np.diff(heights)
    step = float(np.median(steps[steps > _SAME_MM])) if (steps > _SAME_MM).any() else 0.0
    repeated = int((steps <= _SAME_MM).sum())
    if repeated:
        raise InputError(
            f"{where} has {repeated} slices where another one lies: several echoes, time points or copies, one volume "
            "is expected."
        )
    gaps = np.round(steps / step).astype(int) - 1
    if gaps.any():
        raise InputError(
            f"{where} lacks {gaps[gaps > 0].sum()} slices ({len(heights)} are there, {step:.2f} mm apart): send or "
            "copy it again."
        )
    if not np.allclose(steps, step, rtol=_SAME_STEP, atol=0):
        raise InputError(
            f"{where} has slices {steps.min():.2f} to {steps.max():.2f} mm apart: equal distances are expected."
        )
    return step
