"""Readers of cohorts with a folder for each case, and of images/ beside labels/."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from bundle.bids import find_subject
from bundle.data.cohorts.cases import Case, Cohort, case_of, image_files, without_testing
from bundle.data.datalists import load_datalist
from bundle.files import stem

__all__ = ["read_atlas_r1", "read_isles_2015", "read_plain"]

# t01 in Site1/031768, or c0003s0002t01 as in the releases of other years.
_SESSION = re.compile(r"(?P<subject>(?P<site>c\d+)s\d+)?(?P<session>t\d+)", re.IGNORECASE)
# T1 and OT (the truth) in VSD.Brain.XX.O.MR_T1.70615 or VSD.Brain.01.O.OT_reg; T1c is another sequence.
_VOLUME = re.compile(r"(?:^|[._-])(T1|OT)(?=[._-]|$)", re.IGNORECASE)


def _is_mask(file: Path) -> bool:
    return "lesionsmooth" in file.name.lower()


def _is_t1w(file: Path) -> bool:
    return "t1w" in file.name.lower() and "lesion" not in file.name.lower()


def read_atlas_r1(root: Path) -> Cohort:
    """Read ATLAS R1.1: ``Site1/031768/t01/`` with one ``*t1w*`` and one or more ``*LesionSmooth*``.

    Liew et al., Scientific Data 5, 180011 (2018): 229 T1w images of 220 people in MNI space. The folders of the sites
    may be anywhere in ``root``; the table and the template beside them are ignored.
    """
    cohort, folders = Cohort(), defaultdict(list)
    for file in filter(lambda file: _is_mask(file) or _is_t1w(file), image_files(root)):
        above = (folder for folder in file.parents if folder.is_relative_to(root))
        folder = next((folder for folder in above if _SESSION.fullmatch(folder.name)), None)
        if folder is None:
            cohort.add(
                f"{file} is not in the folder of a session: a path like Site1/031768/t01/{file.name} is expected."
            )
        else:
            folders[folder].append(file)
    for folder, files in folders.items():
        named = _SESSION.fullmatch(folder.name)
        assert named is not None
        subject, site = named["subject"] or folder.parent.name, named["site"] or folder.parent.parent.name
        masks = [file for file in files if _is_mask(file)]
        facts = {"name": f"{site}_{subject}_{named['session']}", "subject": subject}
        facts |= {"session": named["session"], "site": site}
        cohort.add(case_of(folder, list(filter(_is_t1w, files)), masks, facts))
    return cohort


def read_isles_2015(root: Path) -> Cohort:
    """Read ISLES 2015 SISS: a folder for each case with ``*MR_T1*`` and ``*OT*``, each in its own folder or not.

    Maier et al., Medical Image Analysis 35 (2017): 28 training cases, skull-stripped, 1 mm. Other sequences are not
    read; cases below a Testing folder have no public masks and are left out.
    """
    files, notes = without_testing(image_files(root), root)
    cohort = Cohort(notes=notes)
    folders: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: {"T1": [], "OT": []})
    for file in files:
        if (volume := _VOLUME.search(stem(file))) is not None:
            own_folder = _VOLUME.search(file.parent.name) is not None
            folders[file.parent.parent if own_folder else file.parent][volume[1].upper()].append(file)
    for folder, volumes in folders.items():
        cohort.add(case_of(folder, volumes["T1"], volumes["OT"], {"name": folder.name, "subject": folder.name}))
    return cohort


def read_plain(root: Path) -> Cohort:
    """Read ``images/`` and ``labels/`` with equal names; the subject is ``sub-<label>``, or else the name."""
    cohort = Cohort()
    if not (root / "images").is_dir() or not (root / "labels").is_dir():
        return cohort
    for item in load_datalist(root):
        name = stem(item["image"])
        cohort.add(Case(name, find_subject(name) or name, Path(item["image"]), (Path(item["label"]),)))
    return cohort
