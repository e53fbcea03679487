"""The folder layouts of cohorts, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bundle.data.cohorts.bids import read_atlas_r2, read_bids
from bundle.data.cohorts.cases import Cohort, repeated_cases
from bundle.data.cohorts.folders import read_atlas_r1, read_isles_2015, read_plain
from bundle.errors import InputError

__all__ = ["LAYOUTS", "Layout", "read_cohort"]


class Layout(NamedTuple):
    """The folder layout of a cohort."""

    title: str
    read: Callable[[Path], Cohort]
    example: str
    """Files of a case, for the error on another folder."""
    released: int | None = None
    """Number of cases in the release."""


LAYOUTS = {
    "atlas_r1": Layout(
        "ATLAS R1.1",
        read_atlas_r1,
        "Site1/031768/t01/031768_t1w_deface_stx.nii.gz with 031768_LesionSmooth_stx.nii.gz beside it",
        229,
    ),
    "atlas_r2": Layout(
        "ATLAS R2.0",
        read_atlas_r2,
        "Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz with "
        "sub-r001s001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask.nii.gz beside it",
        655,
    ),
    "isles_2015": Layout(
        "ISLES 2015 SISS",
        read_isles_2015,
        "1/VSD.Brain.XX.O.MR_T1.70615/VSD.Brain.XX.O.MR_T1.70615.nii with a folder 1/VSD.Brain.XX.O.OT.*",
        28,
    ),
    "bids": Layout(
        "BIDS",
        read_bids,
        "sub-01/anat/sub-01_T1w.nii.gz with a mask like sub-01_label-lesion_mask.nii.gz beside it or in derivatives/",
    ),
    "plain": Layout("images/ and labels/", read_plain, "images/case_1.nii.gz with labels/case_1.nii.gz"),
}
"""Layouts by the name that ``scripts.prepare`` takes."""


def read_cohort(layout: str, source: str | Path) -> Cohort:
    """Return the cases of a downloaded cohort, from the names of its files.

    Args:
        layout: one of :data:`LAYOUTS`.
        source: the folder it was unpacked to, or one above.

    Returns:
        Cases sorted by name, a sentence for each case that cannot be used, and notes.

    Raises:
        InputError: when there is no such layout or folder, or no case in it.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout {layout!r}: choose from {', '.join(LAYOUTS)}.")
    title, read, example, _ = LAYOUTS[layout]
    root = Path(source)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: {title} is expected there, unpacked.")
    cohort = read(root.resolve())
    if not cohort.cases and not cohort.problems:
        raise InputError(f"{root} holds no case of {title}, such as {example}.")
    cohort.cases.sort(key=lambda case: case.name)
    cohort.problems += repeated_cases(cohort.cases)
    return cohort
