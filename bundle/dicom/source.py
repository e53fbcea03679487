"""DICOM as a source of volumes: one series of each study, converted first, whose mask is written as DICOM too."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
from pydicom.dataset import Dataset

from bundle.dicom.conversion import convert_series, to_slices
from bundle.dicom.report import make_report
from bundle.dicom.segmentation import make_segmentation, read_source
from bundle.dicom.selection import Choice, choose_series
from bundle.dicom.series import Series, Slices, read_series
from bundle.errors import InputError
from bundle.files import replacing
from bundle.volumes.inputs import Algorithm, VolumeInput, file_hash
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["DicomVolume", "RefusedVolume", "StudyInput", "find_studies"]


@dataclass(frozen=True)
class DicomVolume(VolumeInput):
    """A series, which is converted to ``file``.

    Args:
        instances: its DICOM files.
        slices: its grid.
        structured_report: write the volumes of the lesions as a structured report too.
    """

    instances: tuple[Path, ...]
    slices: Slices = field(compare=False)
    structured_report: bool = False

    def content_hash(self) -> str:
        """Return the SHA-256 of the instances."""
        return hashlib.sha256(" ".join(map(file_hash, self.instances)).encode()).hexdigest()

    def prepare_source(self) -> None:
        """Convert the series to NIfTI."""
        convert_series(self.instances, self.slices, self.file)

    def extra_paths(self, output: Path) -> list[Path]:
        """Return where the converted series, the DICOM segmentation and the structured report are."""
        return [self.file, self._segmentation_path(output), self._report_path(output)]

    def write_extra(self, output: Path, lesions: Sequence[VolumeLesion], algorithm: Algorithm | None) -> list[Path]:
        """Write the mask as a DICOM segmentation and, if it was asked for, a structured report."""
        assert algorithm is not None  # the segmenter names it
        where = self.instances[0].parent
        mask = to_slices(nib.load(self.result_path(output, "desc-lesion_mask")), self.slices, where)
        objects: dict[Path, Dataset] = {}
        try:
            source = read_source(self.instances)
            segmentation = objects[self._segmentation_path(output)] = make_segmentation(source, mask, algorithm)
            if self.structured_report:
                objects[self._report_path(output)] = make_report(source, segmentation, lesions, algorithm)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # highdicom's, of what a header lacks
            reason = " ".join(str(error).split())
            raise InputError(f"No DICOM object can be made from the series in {where}: {reason}") from error
        for path, made in objects.items():
            with replacing(path) as unfinished:
                made.save_as(unfinished)
        return [self.file, *objects]

    def _segmentation_path(self, output: Path) -> Path:
        return self.result_path(output, "desc-lesion_mask", ".dcm")

    def _report_path(self, output: Path) -> Path:
        return self.result_path(output, "desc-lesion_report", ".dcm")


@dataclass(frozen=True)
class RefusedVolume(VolumeInput):
    """A study without a usable series, or a file that cannot be read; it fails in its turn.

    Args:
        refusal: a sentence on why it cannot be used.
    """

    refusal: str

    def prepare_source(self) -> None:
        """Raise the refusal."""
        raise InputError(self.refusal)


class StudyInput(NamedTuple):
    """A study, or a file that cannot be read, on its way into a batch.

    Args:
        volume: its T1w series, or what fails with the sentence on why there is none.
        folder: where it is.
        lines: for people, which series was taken and which were passed over, and why.
    """

    volume: VolumeInput
    folder: Path
    lines: list[str]


def _choose(study: Sequence[Series], asked: str | None) -> Choice | str:
    """Return the choice, or the sentence on why there is none."""
    try:
        return choose_series(study, asked)
    except InputError as refusal:
        return str(refusal)


def _name(study: Sequence[Series], choice: Choice | str, base: Path) -> str:
    """Return the name of a study's results: its folder below the base, and the number of the series."""
    if isinstance(choice, str):
        return (study[0].folder.relative_to(base) / "study").as_posix()
    number = choice.series.number
    name = f"series-{number}" if number.isdecimal() else "series"
    return (choice.series.folder.relative_to(base) / name).as_posix()


def find_studies(
    files: Iterable[Path],
    source: str | Path,
    output: Path,
    asked: str | None = None,
    taken: Iterable[str] = (),
    structured_report: bool = False,
) -> list[StudyInput]:
    """Find one volume for each study, and a failed one for each file that cannot be read: it could be a slice of any.

    Args:
        files: of :func:`bundle.dicom.files.find_dicom_files`.
        source: the file or folder that they were found in.
        output: the folder of the results; converted series are in its ``images``.
        asked: the number or UID of the series that is taken of each study, in place of the rules'.
        taken: names that other volumes of the batch have.
        structured_report: write the volumes of the lesions as structured reports too.
    """
    base = Path(os.path.normpath(Path(source).absolute()))
    base = base if base.is_dir() else base.parent
    found, faults = read_series(files)
    studies = [list(group) for _, group in groupby(found, key=lambda series: series.study_uid)]
    choices = [_choose(study, asked) for study in studies]
    names = [_name(study, choice, base) for study, choice in zip(studies, choices, strict=True)]
    counts = Counter(name.casefold() for name in (*names, *taken))
    inputs: list[StudyInput] = []
    for study, choice, name in zip(studies, choices, names, strict=True):
        # All that share a name get a digest, so that no name depends on the order.
        digest = hashlib.sha256(study[0].study_uid.encode()).hexdigest()[:8]
        unique = name if counts[name.casefold()] == 1 else f"{name}-{digest}"
        image = output / "images" / f"{unique}.nii.gz"
        if isinstance(choice, str):
            inputs.append(StudyInput(RefusedVolume(image, unique, choice), study[0].folder, []))
        else:
            volume = DicomVolume(image, unique, tuple(choice.series.files), choice.slices, structured_report)
            inputs.append(StudyInput(volume, study[0].folder, choice.lines()))
    for file, sentence in faults.items():
        refused = RefusedVolume(file, file.relative_to(base).as_posix(), sentence)
        inputs.append(StudyInput(refused, file.parent, []))
    return inputs
