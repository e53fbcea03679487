"""What evaluations left, and paired tests of it."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Difference", "compare_paired", "read_cases", "read_rows", "shown_p"]


class Difference(NamedTuple):
    """Mean difference of a metric over the same cases, with the p values of two two-sided paired tests."""

    mean: float
    wilcoxon_p: float
    t_p: float


def read_rows(file: Path) -> list[dict[str, str]]:
    """A table with a header, as the handler ``CaseTable`` writes it."""
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def read_cases(file: Path) -> dict[str, dict[str, float]]:
    """The metrics of a ``cases.csv`` by the label's file; an empty cell is a value that is not defined.

    Files are named from the folder that they share: ATLAS has two of one name, in a subject's two sessions.
    """
    rows = read_rows(file)
    shared = os.path.commonpath([Path(row["case"]).parent for row in rows])
    cases = {}
    for row in rows:
        name = os.path.relpath(row.pop("case"), shared)
        cases[name] = {key: float(value) if value else math.nan for key, value in row.items()}
    return dict(sorted(cases.items()))


def compare_paired(values: Sequence[float], against: Sequence[float]) -> Difference:
    """Paired tests of a metric over the same cases; p is 1 where no case differs.

    Args:
        values: of one network.
        against: of another.
    """
    difference = np.subtract(values, against)
    if not difference.any():
        return Difference(0.0, 1.0, 1.0)
    return Difference(
        float(difference.mean()),
        float(stats.wilcoxon(difference).pvalue),
        float(stats.ttest_rel(values, against).pvalue),
    )


def shown_p(value: float) -> str:
    """As text."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
