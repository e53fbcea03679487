"""The studies in a folder of DICOM files, as volumes of a batch: one series of each."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from bundle.dicom.selection import Choice, choose_series
from bundle.dicom.series import Series, read_series
from bundle.errors import InputError
from bundle.volumes.inputs import VolumeInput

__all__ = ["StudyInput", "find_studies"]


class StudyInput(NamedTuple):
    """A study, or a file that cannot be read, on its way into a batch.

    Args:
        volume: its T1w series, or the sentence on why there is none.
        folder: where it lies.
        lines: for people, what was taken and what was passed over, and why.
    """

    volume: VolumeInput
    folder: Path
    lines: list[str]


def _chosen(study: Sequence[Series], asked: str | None) -> tuple[Choice | None, str]:
    """The choice, or the sentence on why there is none."""
    try:
        return choose_series(study, asked), ""
    except InputError as refusal:
        return None, str(refusal)


def _name(series: Series, chosen: bool, base: Path) -> str:
    """Of a study's results: its folder below the base, and the number of the series."""
    name = f"series-{series.number}" if series.number.isdecimal() and chosen else "series" if chosen else "study"
    return (series.folder.relative_to(base) / name).as_posix()


def find_studies(
    files: Iterable[Path], source: str | Path, output: Path, asked: str | None = None, taken: Iterable[str] = ()
) -> list[StudyInput]:
    """One volume for each study, and a failed one for each file that cannot be read: it could be a slice of any.

    Args:
        files: of :func:`bundle.dicom.files.find_dicom_files`.
        source: the file or folder that they were found in.
        output: the folder of the results; converted series are in its ``images``.
        asked: the number or UID of the series that is taken of each study, in place of the rules'.
        taken: names that other volumes of the batch have.
    """
    base = Path(os.path.normpath(Path(source).absolute()))
    base = base if base.is_dir() else base.parent
    found, faults = read_series(files)
    studies = [list(group) for _, group in groupby(found, key=lambda series: series.study_uid)]
    choices = [_chosen(study, asked) for study in studies]
    names = [
        _name(choice.series if choice else study[0], choice is not None, base)
        for study, (choice, _) in zip(studies, choices, strict=True)
    ]
    counts = Counter(name.casefold() for name in (*names, *taken))
    inputs = []
    for study, (choice, refusal), name in zip(studies, choices, names, strict=True):
        # All of those that share a name, so that none's depends on which of them come first.
        digest = hashlib.sha256(study[0].study_uid.encode()).hexdigest()[:8]
        unique = name if counts[name.casefold()] == 1 else f"{name}-{digest}"
        instances = tuple(choice.series.files) if choice else ()
        volume = VolumeInput(output / "images" / f"{unique}.nii.gz", unique, instances, refusal)
        inputs.append(StudyInput(volume, study[0].folder, choice.lines() if choice else []))
    for file, sentence in faults.items():
        volume = VolumeInput(file, file.relative_to(base).as_posix(), (), sentence)
        inputs.append(StudyInput(volume, file.parent, []))
    return inputs
