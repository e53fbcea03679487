"""The results that evaluations wrote, and paired tests of them."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Cases", "Difference", "compare_paired", "read_cases", "read_rows"]

Cases = Mapping[str, Mapping[str, float]]
"""The metrics of test cases, by the name of each."""


class Difference(NamedTuple):
    """Mean difference of a metric over the same cases, with the p values of two two-sided paired tests."""

    mean: float
    wilcoxon_p: float
    t_p: float


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table with a header, as the handler ``CaseTable`` writes it."""
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def read_cases(file: Path) -> dict[str, dict[str, float]]:
    """Return the metrics of a ``cases.csv`` by the label's file; an empty cell is NaN, a value that is not defined.

    Files are named from the folder that they share: ATLAS has two of one name, in a subject's two sessions.
    """
    rows = {row.pop("case"): row for row in read_rows(file)}
    shared = os.path.commonpath([Path(case).parent for case in rows])
    return {
        os.path.relpath(case, shared): {key: float(value) if value else math.nan for key, value in rows[case].items()}
        for case in sorted(rows)
    }


def compare_paired(values: Sequence[float], against: Sequence[float]) -> Difference:
    """Return the paired tests of a metric over the same cases; p is 1 where no case differs.

    Args:
        values: of one network.
        against: of another.
    """
    difference = np.subtract(values, against)
    if not difference.any():
        return Difference(0.0, 1.0, 1.0)
    wilcoxon, t_test = stats.wilcoxon(difference), stats.ttest_rel(values, against)
    return Difference(float(difference.mean()), float(wilcoxon.pvalue), float(t_test.pvalue))
