"""The mask of a series as a DICOM segmentation, for a PACS to show on the scan."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

from bundle.dicom.headers import PATIENT_AND_STUDY, patient_and_study, read_dicom
from bundle.volumes.inputs import Algorithm

__all__ = [
    "INFARCT",
    "MANUFACTURER",
    "NOT_FOR_CLINICAL_USE",
    "SEGMENT",
    "SERIES_NUMBER_OFFSET",
    "make_segmentation",
    "read_source",
    "stable_uid",
]

# highdicom prints each patient's name that is a single word, as anonymisers leave them.
warnings.filterwarnings("ignore", "The string .* is unlikely to represent the intended person name")

INFARCT = Code("55641003", "SCT", "Infarct")
MANUFACTURER = "Stroke lesion bundle"
NOT_FOR_CLINICAL_USE = "not for clinical use"
SEGMENT: dict[str, Any] = {
    "segment_label": "Stroke lesion",
    "segmented_property_category": codes.SCT.MorphologicallyAbnormalStructure,
    "segmented_property_type": INFARCT,
    "anatomic_regions": [codes.SCT.Brain],
    "tracking_id": "stroke lesion",
}
"""The description of the segment, the same in highdicom and in the MONAI Deploy App SDK."""

SERIES_NUMBER_OFFSET = 1000
"""The distance of a segmentation's series number from its source's, and of a report's from its segmentation's."""

_PINK = hd.color.CIELabColor(60.0, 80.0, -20.0)
_OF_SERIES = (
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns"),
    *("ImageOrientationPatient", "PixelSpacing", "NumberOfFrames"),
)
_OF_ALL_FRAMES, _OF_FRAME = ("PixelMeasuresSequence", "PlaneOrientationSequence"), ("PlanePositionSequence",)
_OF_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "ImagePositionPatient")
_THICKNESS = ("SliceThickness", "SpacingBetweenSlices")


def stable_uid(*parts: str | bytes) -> UID:
    """Return the same UID for the same parts, so that an object that is made or sent again replaces itself."""
    contents = (part.encode() if isinstance(part, str) else part for part in parts)
    return generate_uid(entropy_srcs=[hashlib.sha256(content).hexdigest() for content in contents])


def read_source(files: Sequence[Path]) -> list[Dataset]:
    """Return of each instance of a series only what objects made from it take over: patient, study and geometry.

    What is empty of patient and study in the first instance is taken from the others. Without a frame of reference, of
    which DICOM's objects need one, the series gets one of its own, always the same.
    """
    shared, instances, frame_of_reference = Dataset(), list[dict[str, Any]](), UID("")
    for file in files:
        header = read_dicom(file, stop_before_pixels=True)
        found, _ = patient_and_study(header)
        if not instances:
            shared = found
            number = str(header.get("SeriesNumber") or 0)
            shared.SeriesNumber = int(number) if re.fullmatch(r"\d{1,8}", number) else 0
            shared.update(_only(header, (*_OF_SERIES, *_THICKNESS)))
            shared.setdefault("SliceThickness", None)
            if "PerFrameFunctionalGroupsSequence" in header:
                shared.update(_groups(header))
        for keyword in PATIENT_AND_STUDY:
            shared[keyword] = shared[keyword] if shared[keyword].value else found[keyword]
        if not frame_of_reference.is_valid:
            frame_of_reference = UID(str(header.get("FrameOfReferenceUID") or ""))
        instances.append(_only(header, _OF_INSTANCE))
    made = stable_uid("frame of reference", str(shared.SeriesInstanceUID))
    shared.FrameOfReferenceUID = frame_of_reference if frame_of_reference.is_valid else made
    return [_merged(shared, instance) for instance in instances]


def _merged(shared: Dataset, instance: dict[str, Any]) -> Dataset:
    source = Dataset()
    source.update(shared)
    source.update(instance)
    return source


def _only(header: Dataset, keywords: Sequence[str]) -> dict[str, Any]:
    """Return the values of a header; a thickness that is not one is empty."""
    found = {keyword: header[keyword].value for keyword in keywords if keyword in header}
    return found | {keyword: _positive(found[keyword]) for keyword in _THICKNESS if keyword in found}


def _groups(header: Dataset) -> dict[str, Any]:
    """Return the functional groups of a multi-frame object with nothing but the geometry, what is equal as shared."""
    frames = header.PerFrameFunctionalGroupsSequence
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def kept(frame: Dataset, names: Sequence[str]) -> Dataset:
        groups = Dataset()
        for name in names:
            item = Dataset()
            item.update(_only((frame.get(name) or shared[name].value)[0], (*_OF_SERIES, *_THICKNESS, *_OF_INSTANCE)))
            setattr(groups, name, [item])
        return groups

    return {
        "SharedFunctionalGroupsSequence": [kept(frames[0], _OF_ALL_FRAMES)],
        "PerFrameFunctionalGroupsSequence": [kept(frame, _OF_FRAME) for frame in frames],
    }


def _positive(value: Any) -> float | None:
    """Return a length as a number, or None if it is missing or not one."""
    try:
        return float(value) if 0 < float(value) < math.inf else None
    except (TypeError, ValueError):
        return None


def make_segmentation(source: Sequence[Dataset], mask: np.ndarray, algorithm: Algorithm) -> hd.seg.Segmentation:
    """Return a binary segmentation of one segment, Infarct in the Brain, on the slices of its source.

    Args:
        source: from :func:`read_source`.
        mask: ``(slices, rows, columns)``, 0 and 1, uint8, in the order of the source's instances or frames.
        algorithm: what made the mask.
    """
    first = source[0]
    identity: tuple[str | bytes, ...] = (*map(str, (first.SeriesInstanceUID, *algorithm)), np.packbits(mask).tobytes())
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            algorithm.name, codes.DCM.ArtificialIntelligence, algorithm.version, parameters=algorithm.parameters
        ),
        tracking_uid=stable_uid("segment", *identity),
        display_color=_PINK,
        **SEGMENT,
    )
    return hd.seg.Segmentation(
        source,
        mask,
        hd.seg.SegmentationTypeValues.BINARY,
        [segment],
        series_instance_uid=stable_uid("series", *identity),
        series_number=int(first.SeriesNumber) + SERIES_NUMBER_OFFSET,
        sop_instance_uid=stable_uid("segmentation", *identity),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.weights[:12],
        content_label="STROKE_LESION",
        content_description=f"Stroke lesion, {NOT_FOR_CLINICAL_USE}",
        series_description=f"Stroke lesion, {NOT_FOR_CLINICAL_USE}",
    )
