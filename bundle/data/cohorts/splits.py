"""Splits of a cohort into training and test, the same for the same seed, with each subject on one side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Sequence

import numpy as np

from bundle.data.cohorts.cases import Case
from bundle.errors import InputError

__all__ = ["SPLITS", "split_cases", "wanted_test_cases"]

SPLITS = ("holdout", "folds", "sites")
"""8:2 by case, cross-validation, and leave one site out."""

_TEST_SHARE = 0.2

_Sides = tuple[list[Case], list[Case]]


def wanted_test_cases(count: int) -> int:
    """Return how many of ``count`` cases are for the test at 8:2, such as 46 of 229."""
    return max(round(_TEST_SHARE * count), 1)


def _sides(cases: Sequence[Case], test: Container[str]) -> _Sides:
    return [case for case in cases if case.subject not in test], [case for case in cases if case.subject in test]


def _shuffled(sizes: Counter[str], seed: int) -> list[str]:
    # RandomState gives the same numbers in every version of numpy.
    return [str(subject) for subject in np.random.RandomState(seed).permutation(sorted(sizes))]


def _holdout(sizes: Counter[str], seed: int) -> list[str]:
    """Return the first subjects of the shuffle that have the wanted number of cases, or the nearest number below."""
    wanted = wanted_test_cases(sizes.total())
    reached: dict[int, list[str]] = {0: []}
    for subject in _shuffled(sizes, seed):
        for count, chosen in list(reached.items()):
            if count + sizes[subject] <= wanted:
                reached.setdefault(count + sizes[subject], [*chosen, subject])
        if wanted in reached:
            break
    test = reached[max(reached)]
    if not test or len(test) == len(sizes):
        raise InputError(
            f"{sizes.total()} cases of {len(sizes)} subjects cannot be split 8:2 without one subject on both sides."
        )
    return test


def _folds(sizes: Counter[str], seed: int, folds: int) -> list[list[str]]:
    """Return the subjects of each fold: those with the most cases first, each to the fold with the fewest."""
    if not isinstance(folds, int) or not 2 <= folds <= len(sizes):
        raise InputError(f"folds must be 2 to the number of subjects, {len(sizes)}, got {folds}.")
    parts: list[list[str]] = [[] for _ in range(folds)]
    for subject in sorted(_shuffled(sizes, seed), key=lambda subject: -sizes[subject]):
        min(parts, key=lambda part: sum(sizes[one] for one in part)).append(subject)
    return parts


def _sites(cases: Sequence[Case]) -> dict[str, set[str]]:
    """Return the subjects of each site."""
    sites: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.site is None:
            raise InputError(f"The site of {case.name} is unknown: only ATLAS can be split by site.")
        sites[case.site].add(case.subject)
    if len(sites) < 2:
        raise InputError(f"All cases are of site {next(iter(sites))}: two sites or more are needed to leave one out.")
    counts = Counter(subject for subjects in sites.values() for subject in subjects)
    if several := sorted(subject for subject, count in counts.items() if count > 1):
        raise InputError(f"Subject {several[0]} is at several sites: one site for each subject is expected.")
    return dict(sorted(sites.items()))


def split_cases(cases: Sequence[Case], split: str, seed: int = 0, folds: int = 5) -> dict[str, _Sides]:
    """Return the training and test cases of each datalist.

    Args:
        cases: the cases, whose order is kept.
        split: ``holdout`` is one datalist, 8:2 by case; ``folds`` is cross-validation, with each case in one test;
            ``sites`` has each site as a test once, which shows how scans of another site are segmented.
        seed: of the shuffle, 0 or more; not used for ``sites``.
        folds: number of folds; their numbers of cases are as equal as the subjects' sessions allow.

    Returns:
        ``(training, test)`` by name: ``datalist``, or ``fold_1`` and so on, or ``without_<site>`` and so on.

    Raises:
        InputError: when there is no such split, or there are too few subjects or sites for it.
    """
    if split not in SPLITS:
        raise InputError(f"There is no split {split!r}: choose from {', '.join(SPLITS)}.")
    if split == "sites":
        return {f"without_{site}": _sides(cases, subjects) for site, subjects in _sites(cases).items()}
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be an integer of 0 or more, got {seed}.")
    sizes = Counter(case.subject for case in cases)
    if split == "holdout":
        return {"datalist": _sides(cases, _holdout(sizes, seed))}
    return {f"fold_{number}": _sides(cases, part) for number, part in enumerate(_folds(sizes, seed, folds), start=1)}
