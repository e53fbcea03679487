"""The bundle as an application of the MONAI Deploy App SDK, from a DICOM series to a DICOM segmentation.

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
from monai.deploy.operators import monai_bundle_inference_operator as inference
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
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
_NOT_READ = "which MONAI Deploy cannot read: use scripts.segment"


class VolumeOperator(DICOMSeriesToVolumeOperator):
    """The SDK's conversion, with intensities and affine in float32 as in a NIfTI file.

    The SDK gives all slices the type of the first, which is an integer type if that slice is air. The last bits of an
    oblique affine decide where MONAI's ``Spacing`` begins its grid.
    """

    def generate_voxel_data(self, series: DICOMSeries) -> np.ndarray:
        """Return the intensities of a series, ``(slices, rows, columns)``, float32."""
        slices = series.get_sop_instances()
        rescaled = [apply_rescale(one.get_pixel_array(), one.get_native_sop_instance()) for one in slices]
        return np.stack([pixels.astype(np.float32) for pixels in rescaled])

    def compute_affine_transform(self, s_1: Any, s_n: Any, n: int, series: DICOMSeries) -> None:
        """Set the affine from voxels to mm of the ``n`` slices from ``s_1`` to ``s_n``."""
        super().compute_affine_transform(s_1, s_n, n, series)
        exact = getattr(series, self.ATTRIBUTE_NIFTI_AFFINE)
        setattr(series, self.ATTRIBUTE_NIFTI_AFFINE, exact.astype(np.float32).astype(float))


class LesionApplication(Application):
    """The SDK's operators from a folder of DICOM files to the segmentation.

    Args:
        folder: a folder with the instances of one series, and nothing else.
        uid: of the series.
        output: the folder of the segmentation.
        overlays: names of files in ``configs/`` whose values replace those of ``inference.json``.
    """

    def __init__(self, folder: Path, uid: str, output: Path, overlays: Sequence[str] = ()) -> None:
        self._folder, self._uid, self._output = folder, uid, output
        self._configs = ["inference", *overlays]
        super().__init__([sys.executable, __file__])  # the SDK would parse the command's arguments as its own

    def compose(self) -> None:
        """Connect the operators."""
        conditions = {"SeriesInstanceUID": f"^{re.escape(self._uid)}$"}  # searched as a pattern: 1.2.3 is in 1.2.34
        rules = json.dumps({"selections": [{"name": "T1w", "conditions": conditions}]})
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=self._folder, name="loader")
        selector = DICOMSeriesSelectorOperator(self, rules=rules, name="selector")
        converter = VolumeOperator(self, name="converter")
        network = inference.MonaiBundleInferenceOperator(
            self,
            # Without a path the SDK searches ./models for a model of its own kind, and finds the bundle's.
            app_context=AppContext({"model": str(self._output / "none")}),
            input_mapping=[inference.IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[inference.IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=bundle_root(),
            bundle_config_names=inference.BundleConfigNames(config_names=self._configs),
            name="network",
        )
        description = f"{SEGMENT['segment_label']}, {NOT_FOR_CLINICAL_USE}"
        writer = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=[_describe_segment()],
            output_folder=self._output,
            custom_tags={"SeriesDescription": description, "ContentDescription": description},
            name="writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, converter, {(_SERIES, _SERIES)})
        self.add_flow(selector, writer, {(_SERIES, _SERIES)})
        self.add_flow(converter, network, {("image", "image")})
        self.add_flow(network, writer, {("pred", "seg_image")})


def _describe_segment() -> SegmentDescription:
    """Return the description of the segment, with the bundle as the algorithm that made it."""
    metadata = json.loads((Path(bundle_root()) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return SegmentDescription(algorithm_name=metadata["name"], algorithm_version=metadata["version"], **SEGMENT)


def _check_readable(series: Series) -> None:
    """Check that a series is not one that the SDK reads wrongly without an error.

    Raises:
        InputError: if it is multi-frame, because the SDK ignores the positions of frames; if it has no frame of
            reference, because the SDK makes none; or if its pixels are not square, because the SDK swaps their two
            sizes.
    """
    header = series.headers[0]
    if header.SOPClassUID != MRImageStorage:
        raise InputError(f"{series} in {series.folder} is multi-frame, {_NOT_READ}.")
    if not all(header.get("FrameOfReferenceUID") for header in series.headers):
        raise InputError(f"{series} in {series.folder} has no FrameOfReferenceUID, {_NOT_READ}.")
    rows_mm, columns_mm = map(float, header.PixelSpacing)
    if abs(rows_mm - columns_mm) > _SAME_MM:
        raise InputError(f"{series} in {series.folder} has pixels of {rows_mm:g} x {columns_mm:g} mm, {_NOT_READ}.")


def segment_series(series: Series, output: Path, overlays: Sequence[str] = ()) -> Path:
    """Run the application on a series.

    Args:
        series: a complete stack of slices, from :func:`bundle.dicom.selection.choose_series`.
        output: the folder of the segmentation. Its name is its UID, which the SDK makes new each time.
        overlays: see :class:`LesionApplication`.

    Returns:
        the file of the segmentation, which is written atomically.

    Raises:
        InputError: if the SDK cannot read the series, it cannot be segmented, or the segmentation cannot be written.
    """
    _check_readable(series)
    with TemporaryDirectory() as name:
        staged, made = Path(name) / "series", Path(name) / "made"
        staged.mkdir()
        stage_series(series.files, staged)
        try:
            LesionApplication(staged, series.uid, made, overlays).run()
        except Exception as error:
            if (reason := find_input_error(error)) is None:
                raise
            raise InputError(f"{series} in {series.folder} could not be segmented: {reason}") from error
        (segmentation,) = made.glob("*.dcm")
        try:
            with replacing(output / segmentation.name) as unfinished:
                shutil.copyfile(segmentation, unfinished)
        except OSError as error:
            raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    return output / segmentation.name
