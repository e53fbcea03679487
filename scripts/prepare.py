"""Checked datalists of a downloaded cohort: ``python -m scripts.prepare LAYOUT SOURCE OUTPUT``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bundle.errors import InputError
from bundle.files import read_json, write_json
from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.data.cohorts import Case, Cohort

__all__ = ["prepare"]

_SECTIONS = ("training", "test")


def _plan(layout: str, cases: Sequence[Case], split: str, seed: int, folds: int | None) -> dict[str, dict[str, Any]]:
    """Return the datalists by name, with cases in place of items."""
    from bundle.data.cohorts import LAYOUTS, split_cases

    if folds is not None and split != "folds":
        raise InputError(f"folds goes with --split folds, and the split is {split!r}.")
    settings: dict[str, Any] = {"name": LAYOUTS[layout].title, "layout": layout, "split": split}
    if split != "sites":
        settings["seed"] = seed
    if split == "folds":
        settings["folds"] = 5 if folds is None else folds
    parts = split_cases(cases, split, seed, settings.get("folds", 5))
    return {name: {**settings, **dict(zip(_SECTIONS, sides, strict=True))} for name, sides in parts.items()}


def _check_unchanged(file: Path, planned: dict[str, Any]) -> None:
    """Check that a datalist does not replace one with other settings or cases: a split is made once.

    Raises:
        InputError: if the file exists and differs from what is planned.
    """
    if not file.exists():
        return
    wanted = planned | {section: [case.name for case in planned[section]] for section in _SECTIONS}
    try:
        found = read_json(file)
        found |= {section: [item["case"] for item in found[section]] for section in _SECTIONS}
    except (ValueError, TypeError, KeyError):
        found = {}
    if changed := [key for key in wanted if found.get(key) != wanted[key]]:
        raise InputError(
            f"{file} exists with other {', '.join(changed)}: choose another folder, or remove it to split again."
        )


def _item(case: Case, label: Path) -> dict[str, str]:
    """Return a case as training reads it; paths are absolute, because the images stay where they are."""
    facts = {"image": case.image, "label": label, "case": case.name}
    facts |= {"subject": case.subject, "session": case.session, "site": case.site}
    return {key: str(fact) for key, fact in facts.items() if fact}


def _labels(cohort: Cohort, folder: Path) -> dict[str, tuple[Path, float]]:
    """Return label and lesion volume in mL by case.

    Raises:
        InputError: with one sentence for each problem of the cohort and of its files.
    """
    from bundle.data.cohorts import prepare_label

    problems, labels = list(cohort.problems), {}
    for case in tqdm(cohort.cases, desc="cases"):
        try:
            labels[case.name] = prepare_label(case, folder)
        except InputError as problem:
            problems.append(str(problem))
    if problems:
        raise InputError("\n".join([f"{len(problems)} problems in the cohort; no datalist was written.", *problems]))
    return labels


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _summary(layout: str, cohort: Cohort, labels: dict[str, tuple[Path, float]], folder: Path) -> list[str]:
    """Return lines on the cases, their lesions and labels, and the notes on what was left out."""
    from bundle.data.cohorts import LAYOUTS

    title, _, _, released = LAYOUTS[layout]
    cases = cohort.cases
    sites = {case.site for case in cases if case.site}
    volumes_ml = [volume_ml for _, volume_ml in labels.values()]
    written = sum(label.is_relative_to(folder) for label, _ in labels.values())
    people = f"{_count(len(cases), 'case')} of {_count(len({case.subject for case in cases}), 'subject')}"
    lines = [
        f"{title}: {people}" + (f" at {_count(len(sites), 'site')}" if sites else ""),
        f"lesions: {min(volumes_ml):.2f} to {max(volumes_ml):.2f} mL, median {statistics.median(volumes_ml):.2f} mL",
        f"labels: {written} written to {folder}, {len(labels) - written} used in place",
    ]
    if released not in (None, len(cases)):
        lines.append(f"note: the release has {released} cases")
    return lines + cohort.notes


def prepare(
    layout: str, source: str, output: str, split: str = "holdout", seed: int = 0, folds: int | None = None
) -> None:
    """Write OUTPUT/datalist.json, or OUTPUT/fold_1.json ..., or OUTPUT/without_<site>.json ..., and OUTPUT/labels.

    Each datalist has the sections "training" and "test". Every image and mask is checked; if there are problems, all
    are listed and no datalist is written. The masks of a case are united in OUTPUT/labels; a single mask of 0 and 1 is
    used in place. SOURCE is only read. The same settings give the same files, byte for byte; a datalist with other
    settings or cases is never overwritten.

    Args:
        layout: "atlas_r1", "atlas_r2", "isles_2015", "bids" or "plain".
        source: the folder of the unpacked cohort.
        output: the folder to write to, outside SOURCE.
        split: "holdout" (8:2 by case), "folds" or "sites" (each site left out once). No subject is on both sides.
        seed: of the split; not used by "sites".
        folds: the number of folds, with "folds"; 5 by default.
    """
    from bundle.data.cohorts import read_cohort
    from bundle.data.cohorts.splits import wanted_test_cases

    target = Path(output).resolve()
    if target.is_relative_to(Path(source).resolve()):
        raise InputError(f"{output} is in {source}: choose a folder outside, so that the download stays unchanged.")
    cohort = read_cohort(layout, source)
    planned = {} if cohort.problems else _plan(layout, cohort.cases, split, seed, folds)
    for name, datalist in planned.items():
        _check_unchanged(target / f"{name}.json", datalist)
    labels = _labels(cohort, target / "labels")
    print(*_summary(layout, cohort, labels, target / "labels"), sep="\n")
    for name, datalist in planned.items():
        sections = {key: [_item(case, labels[case.name][0]) for case in datalist[key]] for key in _SECTIONS}
        write_json({**datalist, **sections}, target / f"{name}.json")
        print(f"{target / name}.json: {len(sections['training'])} training, {len(sections['test'])} test")
    wanted = wanted_test_cases(len(cohort.cases))
    if split == "holdout" and len(planned["datalist"]["test"]) != wanted:
        print(f"note: 8:2 would be {wanted} test cases, which the subjects' sessions do not allow")


if __name__ == "__main__":
    run_command(prepare)
