"""Readers of cohorts with BIDS names, such as ``sub-01_ses-1_T1w.nii.gz``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.bids import BidsName, find_subject, parse_name
from bundle.data.cohorts.cases import Case, Cohort, image_files, without_testing

__all__ = ["read_atlas_r2", "read_bids"]

_NATIVE = ("T1w", "orig", "native", "individual")
# Entities of a derivative that its source scan does not share.
_OF_THE_FILE = ("desc", "label", "space")


@dataclass(frozen=True)
class _Scan:
    """A file and the parts of its name."""

    path: Path
    name: BidsName

    @property
    def session(self) -> tuple[str, str | None]:
        return self.name.entities["sub"], self.name.entities.get("ses")

    @property
    def space(self) -> str | None:
        space = self.name.entities.get("space")
        return None if space in _NATIVE else space

    @property
    def is_lesion_mask(self) -> bool:
        """Whether it is a lesion mask, but not of another sequence, as ``sub-01_T2w_desc-lesion_mask.nii.gz`` is."""
        named = "lesion" in self.path.name.lower() and self.name.suffix in ("mask", "roi", "lesion")
        return named and "sub" in self.name.entities and set(self.name.words) <= {"T1w", "lesion"}

    @property
    def order(self) -> tuple:
        """Sort key: native space first, then scans before derivatives, short names, first runs, upper folders."""
        run = self.name.entities.get("run", "").zfill(9)
        derived = self.space is not None, "desc" in self.name.entities
        return *derived, len(self.name.entities), run, self.path.name, len(self.path.parts), str(self.path)


def _image_of(mask: _Scan, images: Sequence[_Scan]) -> _Scan | None:
    """Return the image in the mask's space with the most equal entities and no different one; of several the first."""

    def shared(image: _Scan) -> list[bool]:
        ours, theirs = mask.name.entities, image.name.entities
        return [ours[key] == theirs[key] for key in ours.keys() & theirs.keys() - set(_OF_THE_FILE)]

    fitting = [image for image in images if image.space == mask.space and all(shared(image))]
    return min(fitting, key=lambda image: (-len(shared(image)), image.order), default=None)


def _case(images: Sequence[_Scan], masks: Sequence[_Scan]) -> Case | str:
    """Return the case of a session that has masks, or a sentence on why there is none."""
    paired = [(mask, image) for mask in masks if (image := _image_of(mask, images))]
    if not paired:
        return (
            f"{masks[0].path} has no T1w image: one of the same subject, session and space is expected, "
            "like sub-01_ses-1_T1w.nii.gz."
        )
    first = min((image for _, image in paired), key=lambda image: image.order)
    own = [mask.path for mask, image in paired if image is first]
    if len(own) > 1:
        return f"{first.path} has {len(own)} lesion masks, {' and '.join(map(str, own))}: one is expected."
    subject, session = first.session
    name = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    return Case(name, f"sub-{subject}", first.path, tuple(own), session)


def _read_sessions(files: Sequence[Path]) -> tuple[Cohort, list[Path]]:
    """Return the case of each session with a lesion mask, and the first image of each session without."""
    sessions: dict[tuple, tuple[list[_Scan], list[_Scan]]] = defaultdict(lambda: ([], []))
    for scan in (_Scan(file, parse_name(file)) for file in files):
        if scan.name.is_t1w or scan.is_lesion_mask:
            sessions[scan.session][scan.is_lesion_mask].append(scan)
    cohort, unlabelled = Cohort(), []
    for images, masks in sessions.values():
        if masks:
            cohort.add(_case(images, masks))
        else:
            unlabelled.append(min(images, key=lambda image: image.order).path)
    return cohort, unlabelled


def read_bids(root: Path) -> Cohort:
    """Read BIDS with lesion masks in ``derivatives/`` or beside the images: a case for each session that has a mask.

    A mask's name contains ``lesion`` and ends in ``_mask``, ``_roi`` or ``_lesion``. It belongs to the T1w image of its
    subject, session and space that differs in no other entity, such as ``run`` or ``acq``; of several, to the one with
    the shortest name, then the first run. Of pairs in several spaces or runs, the native space and the first run are
    taken. Sessions without a mask, such as controls, are left out, and named.
    """
    files = image_files(root)
    cohort, unlabelled = _read_sessions(files)
    if unlabelled and cohort.cases:
        names = ", ".join(file.name for file in unlabelled)
        cohort.notes.append(f"left out: sessions without a lesion mask of a T1w image ({len(unlabelled)}): {names}")
    scans = (_Scan(file, parse_name(file)) for file in files)
    seen = {find_subject(scan.path.name) for scan in scans if scan.name.is_t1w or scan.is_lesion_mask}
    there = {find_subject(path.name) for path in (*files, *root.glob("sub-*"))}
    if left_out := sorted(filter(None, there - seen)):
        note = f"left out: subjects without a T1w image and a lesion mask ({len(left_out)})"
        cohort.notes.append(f"{note}: {', '.join(left_out)}")
    return cohort


def read_atlas_r2(root: Path) -> Cohort:
    """Read ATLAS R2.0: ``Training/R001/sub-r001s001/ses-1/anat/``; the site is in the subject's name, ``R001``.

    Liew et al., Scientific Data 9, 320 (2022): 655 public cases in MNI space. The 300 cases below ``Testing``, whose
    masks are not public, are left out.
    """
    files, notes = without_testing(image_files(root), root)
    cohort, unlabelled = _read_sessions(files)
    cohort.notes += notes
    for number, case in enumerate(cohort.cases):
        site = re.match(r"sub-(r\d+)s", case.subject)
        cohort.cases[number] = replace(case, site=site[1].upper() if site else None)
    for image in unlabelled:
        mask = image.name.replace("_T1w.", "_label-L_desc-T1lesion_mask.")
        cohort.add(f"{image} has no lesion mask: {mask} is expected beside it.")
    return cohort
