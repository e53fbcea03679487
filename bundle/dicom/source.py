"""DICOM studies as volumes of a batch: one series of each is converted, and its mask is written as DICOM too."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import nibabel as nib
from pydicom.dataset import Dataset

from bundle.dicom.conversion import convert_series, to_slices
from bundle.dicom.files import left_out
from bundle.dicom.headers import drop_unreadable, patient_and_study, read_dicom
from bundle.dicom.report import make_report
from bundle.dicom.segmentation import make_segmentation, read_source
from bundle.dicom.selection import Choice, choose_series
from bundle.dicom.series import Series, Slices, read_series
from bundle.errors import InputError
from bundle.files import replacing
from bundle.volumes.inputs import Algorithm, VolumeInput, file_hash, result_name
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["DicomVolume", "RefusedVolume", "find_studies"]


@dataclass(frozen=True)
class DicomVolume(VolumeInput):
    """A DICOM series, which is converted to ``file``.

    Args:
        instances: its DICOM files.
        slices: its grid.
        structured_report: write the volumes of the lesions as a structured report too.
        study_uid: of its study.
    """

    instances: tuple[Path, ...]
    slices: Slices = field(compare=False)
    structured_report: bool = False
    study_uid: str = ""

    @property
    def origin(self) -> str:
        """The study, wherever its files are."""
        return f"study {hashlib.sha256(self.study_uid.encode()).hexdigest()[:16]}"

    def content_hash(self) -> str:
        """Return the SHA-256 of the instances."""
        return hashlib.sha256(" ".join(map(file_hash, self.instances)).encode()).hexdigest()

    def prepare_source(self) -> None:
        """Convert the series to NIfTI."""
        convert_series(self.instances, self.slices, self.file)

    def extra_paths(self, output: Path) -> list[Path]:
        """Return where the converted series, the DICOM segmentation and the structured report are."""
        return [self.file, *(self.result_path(output, f"desc-lesion_{kind}", ".dcm") for kind in ("mask", "report"))]

    def write_extra(
        self,
        output: Path,
        mask: nib.Nifti1Image,
        lesions: Sequence[VolumeLesion],
        predicted_dice: float | None,
        algorithm: Algorithm | None,
    ) -> list[Path]:
        """Write the mask as a DICOM segmentation and, if it was asked for, a structured report."""
        assert algorithm is not None  # the segmenter names it
        where = self.instances[0].parent
        try:
            source = read_source(self.instances)
            segmentation = make_segmentation(source, to_slices(mask, self.slices, where), algorithm)
            objects: list[Dataset] = [segmentation]
            if self.structured_report:
                objects.append(make_report(source, segmentation, lesions, predicted_dice, algorithm))
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # highdicom's, if a header lacks something
            reason = " ".join(str(error).split())
            raise InputError(f"No DICOM object can be made from the series in {where}: {reason}") from error
        paths = self.extra_paths(output)[: 1 + len(objects)]
        for path, made in zip(paths[1:], objects, strict=True):
            with replacing(path) as unfinished:
                made.save_as(unfinished)
        return paths


@dataclass(frozen=True)
class RefusedVolume(VolumeInput):
    """A study without a usable series, or a file that cannot be read; it fails without stopping the batch.

    Args:
        refusal: why it cannot be used, in a sentence.
    """

    refusal: str

    def prepare_source(self) -> None:
        """Raise the refusal."""
        raise InputError(self.refusal)


def _choose(study: Sequence[Series], asked: str | None, base: Path) -> tuple[Choice | str, str]:
    """Return the choice, or the reason why there is none, and a name: the folder below the base, and the series."""
    try:
        choice = choose_series(study, asked)
    except InputError as refusal:
        return str(refusal), result_name(study[0].folder.relative_to(base) / "study")
    number = choice.series.number
    name = f"series-{number}" if number.isdecimal() else "series"
    return choice, result_name(choice.series.folder.relative_to(base) / name)


def _untidy(series: Series) -> list[str]:
    """Return a line on the values of a series that do not follow DICOM, if there are any; it does not tell them."""
    header = read_dicom(series.files[0], stop_before_pixels=True)
    _, changed = patient_and_study(header)
    names = ", ".join([*changed, *drop_unreadable(header)])
    return (
        [f"{series} does not follow DICOM in {names}: corrected, cut or empty in what is made of it"] if names else []
    )


def find_studies(
    files: Iterable[Path],
    source: str | Path,
    output: Path,
    asked: str | None = None,
    taken: Iterable[str] = (),
    structured_report: bool = False,
) -> tuple[list[VolumeInput], list[str]]:
    """Find one volume for each study, and a failed one for each file that cannot be read: it may be a slice of any.

    Args:
        files: from :func:`bundle.dicom.files.find_dicom_files`.
        source: the file or folder that they were found in.
        output: the folder of the results; converted series are written to its ``images``.
        asked: the number or UID of the series to take of each study, whatever the rules say.
        taken: names of the other volumes of the batch.
        structured_report: write the volumes of the lesions as structured reports too.

    Returns:
        the volumes; and lines for the log: on each series, whether it is taken and why, and on what is left out.
    """
    base = Path(os.path.normpath(Path(source).absolute()))
    base = base if base.is_dir() else base.parent
    files = list(files)
    found, faults = read_series(files)
    studies = [list(group) for _, group in groupby(found, key=lambda series: series.study_uid)]
    chosen = [_choose(study, asked, base) for study in studies]
    counts = Counter(name.casefold() for name in (*(name for _, name in chosen), *taken))
    volumes, lines = list[VolumeInput](), list[str]()
    for study, (choice, name) in zip(studies, chosen, strict=True):
        if counts[name.casefold()] > 1:  # all that share a name get a hash, so that no name depends on the order
            name += f"-{hashlib.sha256(study[0].study_uid.encode()).hexdigest()[:8]}"
        image = output / "images" / f"{name}.nii.gz"
        if isinstance(choice, str):
            volumes.append(RefusedVolume(image, name, choice))
        else:
            instances = tuple(choice.series.files)
            volumes.append(DicomVolume(image, name, instances, choice.slices, structured_report, study[0].study_uid))
            lines += [f"{study[0].folder}: {line}" for line in (*choice.lines(), *_untidy(choice.series))]
    read = sum(len(series.files) + len(series.contradictions) for series in found)
    if unused := len(files) - read - len(faults):
        lines.append(f"{source}: left out: {unused} DICOM files: copies of others, or the index of a CD")
    lines += left_out(source, output, files)
    volumes += [RefusedVolume(file, result_name(file.relative_to(base)), fault) for file, fault in faults.items()]
    return volumes, lines
