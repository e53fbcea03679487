"""The volumes of the lesions as a DICOM structured report (TID 1500) that refers to the segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highdicom import sr
from highdicom.seg import Segmentation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from bundle.dicom.segmentation import INFARCT, MANUFACTURER, NOT_FOR_CLINICAL_USE, SERIES_NUMBER_OFFSET, stable_uid
from bundle.volumes.inputs import Algorithm
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["make_report"]

_ML = Code("mL", "UCUM", "milliliter")
_MR_OF_HEAD = Code("24590-2", "LN", "MR Brain")
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}


def _findings(side: str | None, volume_ml: float, algorithm: Algorithm) -> dict[str, Any]:
    """Return what a measurement group says of an infarct, of the whole brain or of one component."""
    parameters = [f"{name}: {value}" for name, value in algorithm.parameters.items()]
    return {
        "finding_type": INFARCT,
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
        "finding_sites": [sr.FindingSite(codes.SCT.Brain, _SIDES.get(side or ""))],
        "measurements": [sr.Measurement(codes.SCT.Volume, round(volume_ml, 4), _ML)],
        "algorithm_id": sr.AlgorithmIdentification(algorithm.name, algorithm.version, parameters),
    }


def _measurement_groups(
    source: Dataset, segmentation: Segmentation, lesions: Sequence[VolumeLesion], algorithm: Algorithm
) -> list[Dataset]:
    """Return the group of the whole segment, then one for each component."""
    uid = segmentation.SOPInstanceUID
    whole = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(segmentation.SegmentSequence[0].TrackingUID, "stroke lesion"),
        referenced_segment=sr.ReferencedSegment(
            segmentation.SOPClassUID,
            uid,
            segment_number=1,
            source_series=sr.SourceSeriesForSegmentation(source.SeriesInstanceUID),
        ),
        **_findings(None, sum((lesion.volume_ml for lesion in lesions), start=0.0), algorithm),
    )
    components = (
        sr.MeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(stable_uid(uid, name := f"lesion {lesion.number}"), name),
            **_findings(lesion.side, lesion.volume_ml, algorithm),
        )
        for lesion in lesions
    )
    return [whole, *components]


def make_report(
    source: Sequence[Dataset],
    segmentation: Segmentation,
    lesions: Sequence[VolumeLesion],
    algorithm: Algorithm,
) -> sr.ComprehensiveSR:
    """Return a report of the volume of all lesions in mL, and of each with its side where that is known.

    Args:
        source: from :func:`bundle.dicom.segmentation.read_source`.
        segmentation: from :func:`bundle.dicom.segmentation.make_segmentation`.
        lesions: the connected components of its mask.
        algorithm: what made the mask.
    """
    uid = segmentation.SOPInstanceUID
    device = sr.DeviceObserverIdentifyingAttributes(
        stable_uid("device", algorithm.name, algorithm.version, algorithm.weights),
        name=f"{MANUFACTURER}, {NOT_FOR_CLINICAL_USE}",
        model_name=algorithm.name,
    )
    content = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        _MR_OF_HEAD,
        _measurement_groups(source[0], segmentation, lesions, algorithm),
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.ComprehensiveSR(
        [*source, segmentation],
        content,
        series_instance_uid=stable_uid("report series", uid),
        series_number=int(segmentation.SeriesNumber) + SERIES_NUMBER_OFFSET,
        sop_instance_uid=stable_uid("report", uid),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        series_description=f"Stroke lesion volumes, {NOT_FOR_CLINICAL_USE}",
    )
