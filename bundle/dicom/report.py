"""The volumes of the lesions and what they are worth, as a DICOM structured report (TID 1500) of the segmentation."""

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
_PREDICTED_DICE = Code("predicted-dice", "99STROKE", "Predicted Dice similarity coefficient")  # no standard has a code
_MR_OF_HEAD = Code("24590-2", "LN", "MR Brain")
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}


def _findings(side: str | None, volume_ml: float, worth: sr.Measurement | None, algorithm: Algorithm) -> dict[str, Any]:
    """Return what a measurement group says of an infarct, of the whole brain or of one component."""
    volume = sr.Measurement(codes.SCT.Volume, round(volume_ml, 4), _ML)
    parameters = [f"{name}: {value}" for name, value in algorithm.parameters.items()]
    return {
        "finding_type": INFARCT,
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
        "finding_sites": [sr.FindingSite(codes.SCT.Brain, _SIDES.get(side or ""))],
        "measurements": [volume, *([worth] if worth else [])],
        "algorithm_id": sr.AlgorithmIdentification(algorithm.name, algorithm.version, parameters),
    }


def _certainty(lesion: VolumeLesion) -> sr.Measurement | None:
    if lesion.lesion_probability is None:
        return None
    percent = round(100 * lesion.lesion_probability)
    return sr.Measurement(codes.DCM.CertaintyOfFinding, percent, codes.UCUM.Percent)


def _measurement_groups(
    source: Dataset,
    segmentation: Segmentation,
    lesions: Sequence[VolumeLesion],
    predicted_dice: float | None,
    algorithm: Algorithm,
) -> list[Dataset]:
    """Return the group of the whole segment, then one for each component."""
    uid = segmentation.SOPInstanceUID
    volume_ml = sum((lesion.volume_ml for lesion in lesions), start=0.0)
    predicted = None
    if predicted_dice is not None:
        predicted = sr.Measurement(_PREDICTED_DICE, round(predicted_dice, 2), codes.UCUM.NoUnits)
    whole = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(segmentation.SegmentSequence[0].TrackingUID, "stroke lesion"),
        referenced_segment=sr.ReferencedSegment(
            segmentation.SOPClassUID,
            uid,
            segment_number=1,
            source_series=sr.SourceSeriesForSegmentation(source.SeriesInstanceUID),
        ),
        **_findings(None, volume_ml, predicted, algorithm),
    )
    components = (
        sr.MeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(stable_uid(uid, name := f"lesion {lesion.number}"), name),
            **_findings(lesion.side, lesion.volume_ml, _certainty(lesion), algorithm),
        )
        for lesion in lesions
    )
    return [whole, *components]


def make_report(
    source: Sequence[Dataset],
    segmentation: Segmentation,
    lesions: Sequence[VolumeLesion],
    predicted_dice: float | None,
    algorithm: Algorithm,
) -> sr.ComprehensiveSR:
    """Return a report of the volume of all lesions in mL, and of each with its side where that is known.

    Where the weights can tell, the predicted Dice of the mask, and for each lesion how certain it is one, in percent.

    Args:
        source: from :func:`bundle.dicom.segmentation.read_source`.
        segmentation: from :func:`bundle.dicom.segmentation.make_segmentation`.
        lesions: the connected components of its mask.
        predicted_dice: of the mask.
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
        _measurement_groups(source[0], segmentation, lesions, predicted_dice, algorithm),
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
