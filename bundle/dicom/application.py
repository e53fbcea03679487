"""The bundle's folder as an application of the MONAI Deploy App SDK: a DICOM series in, a DICOM segmentation out.

The only module that imports the SDK (requirements/deploy.txt).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.core.domain import Image
from monai.deploy.core.domain.dicom_series import DICOMSeries
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from pydicom.pixels import apply_rescale
from pydicom.uid import MRImageStorage

from bundle.dicom.conversion import stage_series
from bundle.dicom.segmentation import NOT_FOR_CLINICAL_USE, SEGMENT
from bundle.dicom.series import Series
from bundle.errors import InputError, find_input_error
from bundle.files import bundle_root, replacing

__all__ = ["LesionApplication", "segment_series"]

_SAME_MM = 1e-3
_SERIES = "study_selected_series_list"


class VolumeOperator(DICOMSeriesToVolumeOperator):
    """The SDK's volume as a NIfTI file has it: intensities and affine in float32.

    The SDK takes the type of the first slice for all, and one of air has whole numbers. Of an oblique affine, the last
    bits decide where MONAI's ``Spacing`` begins its grid.
    """

    def generate_voxel_data(self, series: DICOMSeries) -> np.ndarray:
        """The intensities of a series, ``(slices, rows, columns)``, float32."""
        slices = series.get_sop_instances()
        return np.stack(
            [apply_rescale(one.get_pixel_array(), one.get_native_sop_instance()).astype(np.float32) for one in slices]
        )

    def compute_affine_transform(self, s_1: Any, s_n: Any, n: int, series: DICOMSeries) -> None:
        """Voxels to world, of the series' ``n`` slices from ``s_1`` to ``s_n``."""
        super().compute_affine_transform(s_1, s_n, n, series)
        exact = getattr(series, self.ATTRIBUTE_NIFTI_AFFINE)
        setattr(series, self.ATTRIBUTE_NIFTI_AFFINE, exact.astype(np.float32).astype(float))


class LesionApplication(Application):
    """The SDK's operators: from a folder to the series, its volume, the bundle, and the segmentation.

    Args:
        folder: with the instances of one series, and nothing else.
        uid: of the series.
        output: the folder of the segmentation.
        overlays: names of files in ``configs/`` whose values stand in place of ``inference.json``'s.
    """

    def __init__(self, folder: Path, uid: str, output: Path, overlays: Sequence[str] = ()) -> None:
        self._folder, self._uid, self._output = folder, uid, output
        self._configs = ["inference", *overlays]
        super().__init__([sys.executable, __file__])  # the command's own arguments are none of the SDK's

    def compose(self) -> None:
        """Connects the operators."""
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=self._folder, name="loader")
        selector = DICOMSeriesSelectorOperator(self, rules=self._rules(), name="selector")
        converter = VolumeOperator(self, name="converter")
        network = MonaiBundleInferenceOperator(
            self,
            # A model of the SDK's own kind, which is not there: it would look in ./models, and find the bundle's.
            app_context=AppContext({"model": str(self._output / "none")}),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=bundle_root(),
            bundle_config_names=BundleConfigNames(config_names=self._configs),
            name="network",
        )
        told = f"{SEGMENT['segment_label']}, {NOT_FOR_CLINICAL_USE}"
        writer = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=[_describe_segment()],
            output_folder=self._output,
            custom_tags={"SeriesDescription": told, "ContentDescription": told},
            name="writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, converter, {(_SERIES, _SERIES)})
        self.add_flow(selector, writer, {(_SERIES, _SERIES)})
        self.add_flow(converter, network, {("image", "image")})
        self.add_flow(network, writer, {("pred", "seg_image")})

    def _rules(self) -> str:
        """The SDK's selection rules. It looks for a pattern, and 1.2.3 is one that 1.2.34 has, too."""
        conditions = {"SeriesInstanceUID": f"^{re.escape(self._uid)}$"}
        return json.dumps({"selections": [{"name": "T1w", "conditions": conditions}]})


def _describe_segment() -> SegmentDescription:
    """What the segment is, and that this bundle made it."""
    metadata = json.loads((Path(bundle_root()) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return SegmentDescription(algorithm_name=metadata["name"], algorithm_version=metadata["version"], **SEGMENT)


def _check_readable(series: Series) -> None:
    """Refuses what the SDK would read wrongly, and say nothing.

    Raises:
        InputError: for multi-frame objects, of which it takes no positions, and for pixels that are not square, whose
            two sizes it exchanges.
    """
    header = series.headers[0]
    instead = "scripts.segment takes it"
    if header.SOPClassUID != MRImageStorage:
        raise InputError(f"{series} in {series.folder} is multi-frame, which MONAI Deploy cannot read: {instead}.")
    rows_mm, columns_mm = map(float, header.PixelSpacing)
    if abs(rows_mm - columns_mm) > _SAME_MM:
        raise InputError(
            f"{series} in {series.folder} has pixels of {rows_mm:g} x {columns_mm:g} mm, which MONAI Deploy takes the "
            f"wrong way round where they are not square: {instead}."
        )


def segment_series(series: Series, output: Path, overlays: Sequence[str] = ()) -> Path:
    """Runs the application on a series.

    Args:
        series: a whole stack of slices, as :func:`bundle.dicom.selection.choose_series` gives it.
        output: the folder of the segmentation, which the SDK gives another UID, and so another name, each time.
        overlays: as for :class:`LesionApplication`.

    Returns:
        the segmentation, whole or not there.

    Raises:
        InputError: when the SDK cannot read the series, it cannot be segmented, or the segmentation not be written.
    """
    _check_readable(series)
    with TemporaryDirectory() as name:
        staged, made = Path(name) / "series", Path(name) / "made"
        staged.mkdir()
        stage_series(series.files, staged)
        try:
            LesionApplication(staged, series.uid, made, overlays).run()
        except Exception as error:
            if (told := find_input_error(error)) is None:
                raise
            raise InputError(f"{series} in {series.folder} could not be segmented: {told}") from error
        (segmentation,) = made.glob("*.dcm")
        try:
            with replacing(output / segmentation.name) as unfinished:
                shutil.copyfile(segmentation, unfinished)
        except OSError as error:
            raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    return output / segmentation.name
