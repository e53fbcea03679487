"""The mask of a series as a DICOM segmentation, for a PACS to show on the scan."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

from bundle.volumes.inputs import Algorithm

__all__ = [
    "INFARCT",
    "NOT_FOR_CLINICAL_USE",
    "SEGMENT",
    "SERIES_NUMBER_OFFSET",
    "make_segmentation",
    "read_source",
    "stable_uid",
]

# It tells the console of every patient's name that is a single word, as anonymisers leave them.
warnings.filterwarnings("ignore", "The string .* is unlikely to represent the intended person name")

INFARCT = Code("55641003", "SCT", "Infarct")
NOT_FOR_CLINICAL_USE = "not for clinical use"
SEGMENT: dict[str, Any] = {
    "segment_label": "Stroke lesion",
    "segmented_property_category": codes.SCT.MorphologicallyAbnormalStructure,
    "segmented_property_type": INFARCT,
    "anatomic_regions": [codes.SCT.Brain],
    "tracking_id": "stroke lesion",
}
"""What a segment is, whoever writes it."""

SERIES_NUMBER_OFFSET = 1000
"""From a source's series number to its segmentation's, and from that to its report's."""

_PINK = highdicom.color.CIELabColor(60.0, 80.0, -20.0)
# What a segmentation takes from its source; scanners and anonymisers leave some of it out.
_OF_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def stable_uid(*parts: str | bytes) -> UID:
    """One UID for the same parts, whenever it is asked for: what is made or sent again takes its own place."""
    digests = [hashlib.sha256(part.encode() if isinstance(part, str) else part).hexdigest() for part in parts]
    return generate_uid(entropy_srcs=digests)


def read_source(files: Sequence[Path]) -> list[Dataset]:
    """The headers of a series with all that an object made from it must take over."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    for header in headers:
        for keyword in _OF_PATIENT_AND_STUDY:
            if keyword not in header:
                setattr(header, keyword, "")
    return headers


def make_segmentation(source: Sequence[Dataset], mask: np.ndarray, algorithm: Algorithm) -> Segmentation:
    """A binary segmentation of one segment, Infarct in the Brain, on the slices of its source.

    Args:
        source: of :func:`read_source`.
        mask: ``(slices, rows, columns)``, 0 and 1, uint8, in the order of the source's instances or frames.
        algorithm: what made the mask.
    """
    identification = highdicom.AlgorithmIdentificationSequence(
        algorithm.name, codes.DCM.ArtificialIntelligence, algorithm.version, parameters=algorithm.parameters
    )
    first = source[0]
    parts = (str(first.SeriesInstanceUID), *algorithm, np.packbits(mask).tobytes())
    identity = [part if isinstance(part, bytes) else str(part) for part in parts]
    segment = SegmentDescription(
        segment_number=1,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identification,
        tracking_uid=stable_uid("segment", *identity),
        display_color=_PINK,
        **SEGMENT,
    )
    return Segmentation(
        source,
        mask,
        SegmentationTypeValues.BINARY,
        [segment],
        series_instance_uid=stable_uid("series", *identity),
        series_number=int(first.get("SeriesNumber") or 0) + SERIES_NUMBER_OFFSET,
        sop_instance_uid=stable_uid("segmentation", *identity),
        instance_number=1,
        manufacturer="Stroke lesion bundle",
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.weights[:12],
        content_label="STROKE_LESION",
        content_description=f"Stroke lesion, {NOT_FOR_CLINICAL_USE}",
        series_description=f"Stroke lesion, {NOT_FOR_CLINICAL_USE}",
    )
