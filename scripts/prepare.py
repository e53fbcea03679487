"""A downloaded cohort as checked datalists: ``python -m scripts.prepare LAYOUT SOURCE OUTPUT``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bundle.errors import InputError
from bundle.files import write_json
from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.data.cohorts import Case, Cohort

__all__ = ["prepare"]

_SECTIONS = ("training", "test")


def _plan(layout: str, cases: Sequence[Case], split: str, seed: int, folds: int | None) -> dict[str, dict[str, Any]]:
    """Each datalist, with cases in place of items."""
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


def _names(datalist: dict[str, Any]) -> dict[str, Any]:
    """A datalist with the cases' names alone, whether it is planned or was read from a file."""
    named = dict(datalist)
    for section in _SECTIONS:
        named[section] = [case["case"] if isinstance(case, dict) else case.name for case in datalist[section]]
    return named


def _keep_what_is_there(file: Path, planned: dict[str, Any]) -> None:
    """A split is made once: one with other settings or cases must not take its place unseen.

    Raises:
        InputError: when the file is there and holds anything else than what is planned.
    """
    if not file.exists():
        return
    try:
        there = _names(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError):
        there = {}
    wanted = _names(planned)
    if changed := [key for key in wanted if there.get(key) != wanted[key]]:
        raise InputError(
            f"{file} is there with other {', '.join(changed)}: choose another folder, or remove it to split anew."
        )


def _item(case: Case, label: Path) -> dict[str, str]:
    """A case as training reads it; paths are absolute, because the images stay where they are."""
    facts = {"case": case.name, "subject": case.subject, "session": case.session, "site": case.site}
    return {"image": str(case.image), "label": str(label), **{key: fact for key, fact in facts.items() if fact}}


def _labels(cohort: Cohort, folder: Path) -> dict[str, tuple[Path, float]]:
    """Label and volume in mL by case.

    Raises:
        InputError: one sentence for every problem of the cohort and of its files.
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
    return f"{number} {what}" + ("" if number == 1 else "s")


def _summary(layout: str, cohort: Cohort, labels: dict[str, tuple[Path, float]], folder: Path) -> list[str]:
    from bundle.data.cohorts import LAYOUTS

    title, _, _, released = LAYOUTS[layout]
    sites = {case.site for case in cohort.cases if case.site}
    volumes_ml = [volume_ml for _, volume_ml in labels.values()]
    made = sum(label.is_relative_to(folder) for label, _ in labels.values())
    lines = [
        f"{title}: {_count(len(cohort.cases), 'case')} of {_count(len({c.subject for c in cohort.cases}), 'subject')}"
        + (f" at {_count(len(sites), 'site')}" if sites else ""),
        f"lesions: {min(volumes_ml):.2f} to {max(volumes_ml):.2f} mL, median {statistics.median(volumes_ml):.2f} mL",
        f"labels: {made} written to {folder}, {len(labels) - made} used where they lie",
    ]
    if released not in (None, len(cohort.cases)):
        lines.append(f"note: the release has {released} cases")
    return lines + cohort.notes


def prepare(
    layout: str, source: str, output: str, split: str = "holdout", seed: int = 0, folds: int | None = None
) -> None:
    """Writes OUTPUT/datalist.json, or OUTPUT/fold_1.json ..., or OUTPUT/without_<site>.json ..., and OUTPUT/labels.

    Each has the sections "training" and "test". Every image and mask is checked; all problems are told at once, and
    then no datalist is written. A case's masks are united in OUTPUT/labels; a single mask of 0 and 1 is used where it
    lies. SOURCE is only read. The same settings give the same files, byte for byte; a datalist with other settings or
    cases is never overwritten.

    Args:
        layout: "atlas_r1", "atlas_r2", "isles_2015", "bids" or "plain".
        source: the folder that the cohort was unpacked to.
        output: the folder to write to, outside SOURCE.
        split: "holdout" (8:2 by case), "folds" or "sites" (each site left out once). No subject is on two sides.
        seed: of the split; "sites" needs none.
        folds: how many, with "folds"; 5 unless given.
    """
    from bundle.data.cohorts import read_cohort
    from bundle.data.cohorts.splits import wanted_test_cases

    target = Path(output).resolve()
    if target.is_relative_to(Path(source).resolve()):
        raise InputError(f"{output} lies in {source}: choose a folder outside, so that the download stays as it is.")
    cohort = read_cohort(layout, source)
    planned = {} if cohort.problems else _plan(layout, cohort.cases, split, seed, folds)
    for name, datalist in planned.items():
        _keep_what_is_there(target / f"{name}.json", datalist)
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
