"""The mask of a series as a DICOM segmentation, for a PACS to show on the scan."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

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
# A segmentation takes these from its source; some scanners and anonymisers leave them out.
_OF_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def stable_uid(*parts: str | bytes) -> UID:
    """Return the same UID for the same parts, so that an object that is made or sent again replaces itself."""
    contents = (part.encode() if isinstance(part, str) else part for part in parts)
    return generate_uid(entropy_srcs=[hashlib.sha256(content).hexdigest() for content in contents])


def read_source(files: Sequence[Path]) -> list[Dataset]:
    """Return the headers of a series with all attributes that an object made from it must take over."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    for header in headers:
        for keyword in _OF_PATIENT_AND_STUDY:
            if keyword not in header:
                setattr(header, keyword, "")
    return headers


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
        series_number=int(first.get("SeriesNumber") or 0) + SERIES_NUMBER_OFFSET,
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
