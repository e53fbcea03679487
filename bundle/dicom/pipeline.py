"""One DICOM series from its instances to its mask, also as a DICOM segmentation and a structured report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import torch
from pydicom.dataset import Dataset

from bundle.dicom.conversion import convert_series, to_slices
from bundle.dicom.report import make_report
from bundle.dicom.segmentation import Algorithm, make_segmentation, read_source
from bundle.dicom.series import find_slices, read_series
from bundle.errors import InputError
from bundle.files import replacing
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import PreparedVolume, VolumePipeline, VolumeResult

__all__ = ["DicomPipeline"]


@dataclass(frozen=True)
class DicomPipeline(VolumePipeline):
    """The steps of a volume that may come as DICOM: it is converted first, and its mask is written as DICOM too.

    A volume that comes as an image takes :class:`bundle.volumes.VolumePipeline`'s steps and no other.

    Args:
        algorithm: what the segmentation says it was made by.
        structured_report: write the volumes of the lesions as a structured report too.
    """

    algorithm: Algorithm = field(kw_only=True)
    structured_report: bool = False

    def paths(self, volume: VolumeInput) -> list[Path]:
        """All results that there can be of a volume; of a series the converted image is one."""
        if not volume.instances:
            return super().paths(volume)
        return [*super().paths(volume), volume.file, self.segmentation_path(volume), self.report_path(volume)]

    def segmentation_path(self, volume: VolumeInput) -> Path:
        """Where the DICOM segmentation of a series is: beside its mask."""
        return self.path(volume, "desc-lesion_mask", ".dcm")

    def report_path(self, volume: VolumeInput) -> Path:
        """Where the structured report of a series is."""
        return self.path(volume, "desc-lesion_report", ".dcm")

    def prepare(self, volume: VolumeInput) -> PreparedVolume:
        """Converts a series, and goes on as with any volume.

        Raises:
            InputError: when it was refused, cannot be converted, cannot be a T1w head, or not be registered.
            Exception: whatever a damaged file makes a reader raise, for :func:`bundle.errors.explain`.
        """
        if volume.refusal:
            raise InputError(volume.refusal)
        if not volume.instances:
            return super().prepare(volume)
        begin = time.perf_counter()
        (series,), _ = read_series(volume.instances)
        convert_series(volume.instances, find_slices(series), volume.file)
        seconds = time.perf_counter() - begin
        prepared = super().prepare(volume)
        timing = {**prepared.timing, "load": prepared.timing["load"] + seconds}
        return prepared._replace(timing=timing)

    def finish(self, volume: VolumeInput, prepared: PreparedVolume, logits: torch.Tensor) -> VolumeResult:
        """Writes the results of a volume, then those of a series as DICOM.

        Args:
            volume: the input.
            prepared: what :meth:`prepare` gave.
            logits: the network's, ``(1, H, W, D)``.

        Raises:
            InputError: when no DICOM object can be made from the series.
            OSError: when a file cannot be written.
        """
        result = super().finish(volume, prepared, logits)
        if not volume.instances:
            return result
        begin = time.perf_counter()
        files = [volume.file, *self._write_dicom(volume, result)]
        timing = {**result.timing, "write": result.timing["write"] + time.perf_counter() - begin}
        named = [*result.files, *(file.relative_to(self.output).as_posix() for file in files)]
        return result._replace(files=named, timing=timing)

    def _write_dicom(self, volume: VolumeInput, result: VolumeResult) -> list[Path]:
        where = volume.instances[0].parent
        (series,), _ = read_series(volume.instances)
        mask = to_slices(nib.load(self.path(volume, "desc-lesion_mask")), find_slices(series), where)
        objects: dict[Path, Dataset] = {}
        try:
            source = read_source(volume.instances)
            segmentation = make_segmentation(source, mask, self.algorithm)
            objects[self.segmentation_path(volume)] = segmentation
            if self.structured_report:
                report = make_report(source, segmentation, result.lesions, self.algorithm)
                objects[self.report_path(volume)] = report
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # highdicom's, of what a header lacks
            reason = " ".join(str(error).split())
            raise InputError(f"No DICOM object can be made from the series in {where}: {reason}") from error
        for path, made in objects.items():
            with replacing(path) as unfinished:
                made.save_as(unfinished)
        return list(objects)
