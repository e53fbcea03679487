"""The volumes of the lesions as a DICOM structured report (TID 1500), which refers to the segmentation."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from bundle.dicom.segmentation import INFARCT, NOT_FOR_CLINICAL_USE, SERIES_NUMBER_OFFSET, stable_uid
from bundle.volumes.inputs import Algorithm
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["make_report"]

_ML = Code("mL", "UCUM", "milliliter")
_MR_OF_HEAD = Code("24590-2", "LN", "MR Brain")
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}


def _volume(volume_ml: float) -> Measurement:
    return Measurement(codes.SCT.Volume, round(volume_ml, 4), _ML)


def _whole(segmentation: Segmentation, source: Dataset, volume_ml: float, identity: dict) -> Dataset:
    """The group of the whole segment."""
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(segmentation.SegmentSequence[0].TrackingUID, "stroke lesion"),
        referenced_segment=ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            segment_number=1,
            source_series=SourceSeriesForSegmentation(source.SeriesInstanceUID),
        ),
        finding_sites=[FindingSite(codes.SCT.Brain)],
        measurements=[_volume(volume_ml)],
        **identity,
    )


def _piece(lesion: VolumeLesion, segmentation: Segmentation, identity: dict) -> Dataset:
    """The group of one connected piece, with its side where that is known."""
    name = f"lesion {lesion.number}"
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(stable_uid(segmentation.SOPInstanceUID, name), name),
        finding_sites=[FindingSite(codes.SCT.Brain, _SIDES.get(lesion.side))],
        measurements=[_volume(lesion.volume_ml)],
        **identity,
    )


def make_report(
    source: Sequence[Dataset],
    segmentation: Segmentation,
    lesions: Sequence[VolumeLesion],
    algorithm: Algorithm,
) -> ComprehensiveSR:
    """The volume of all lesions in mL, and that of each with its side.

    Args:
        source: of :func:`bundle.dicom.segmentation.read_source`.
        segmentation: of :func:`bundle.dicom.segmentation.make_segmentation`.
        lesions: those of its mask.
        algorithm: what made the mask.
    """
    device = DeviceObserverIdentifyingAttributes(
        stable_uid("device", algorithm.name, algorithm.version, algorithm.weights),
        name=f"Stroke lesion bundle, {NOT_FOR_CLINICAL_USE}",
        model_name=algorithm.name,
    )
    identity = {
        "finding_type": INFARCT,
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
        "algorithm_id": AlgorithmIdentification(
            algorithm.name, algorithm.version, [f"{name}: {value}" for name, value in algorithm.parameters.items()]
        ),
    }
    volume_ml = sum((lesion.volume_ml for lesion in lesions), start=0.0)
    content = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        _MR_OF_HEAD,
        [
            _whole(segmentation, source[0], volume_ml, identity),
            *(_piece(lesion, segmentation, identity) for lesion in lesions),
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return ComprehensiveSR(
        [*source, segmentation],
        content,
        series_instance_uid=stable_uid("report series", segmentation.SOPInstanceUID),
        series_number=int(segmentation.SeriesNumber) + SERIES_NUMBER_OFFSET,
        sop_instance_uid=stable_uid("report", segmentation.SOPInstanceUID),
        instance_number=1,
        manufacturer="Stroke lesion bundle",
        is_complete=True,
        series_description=f"Stroke lesion volumes, {NOT_FOR_CLINICAL_USE}",
    )
