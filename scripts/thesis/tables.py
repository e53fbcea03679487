"""Tables of experiments: which runs fill them, what the thesis prints in them, and how they look with our numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.metrics import SIZE_BINS
from scripts.thesis.markdown import table

__all__ = ["Row", "Run", "Table", "load_runs", "load_tables", "to_csv", "to_markdown"]

_FILE = "experiments.json"
_HEADERS = {
    "dsc": "DSC",
    "dsc_sd": "DSC, sd",
    "dsc_global": "DSC(G)",
    "recall": "recall",
    "precision": "precision",
    "jaccard": "Jaccard",
    "asd_mm": "ASD, mm",
    "hd95_mm": "HD95, mm",
    "p_wilcoxon": "p, Wilcoxon",
    "p_t_test": "p, t-test",
    "parameters": "parameters",
    "flops": "FLOPs",
    **{f"dsc_{size}": f"DSC, {size} mL" for size in SIZE_BINS},
}


@dataclass(frozen=True)
class Run:
    """A network that is trained and tested once, for every row that shows it.

    Attributes:
        configs: overlays of ``configs/train.json``.
        options: settings beside them.
        average: runs whose networks are tested together, their logits averaged; then nothing is trained.
    """

    configs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    average: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: what it is of.
        run: its run's name; None is a row from the literature, which nothing here fills.
        thesis: what the thesis prints, as long as the table's columns; NaN where it prints nothing.
    """

    title: str
    run: str | None
    thesis: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """A table of the thesis, or of what its outlook asks for.

    Attributes:
        name: ``"table_3_1"`` and the like; ``"mixed_granularity"`` and ``"three_planes"`` are not in the thesis.
        title: what it shows.
        columns: names of :func:`bundle.metrics.summarize`, or ``"p"``, ``"parameters"``, ``"flops"`` and
            ``"dsc_<bin>"`` of :func:`bundle.metrics.dsc_by_volume`.
        rows: from the top.
        minus: the run whose metrics the rows' are subtracted from; None where they stand as they are.
        against: the run that ``"p"`` compares DSC with.
        note: what a reader has to know of the thesis's numbers.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    minus: str | None = None
    against: str | None = None
    note: str = ""

    @property
    def is_of_thesis(self) -> bool:
        """Whether the thesis prints any of it."""
        return any(not math.isnan(number) for row in self.rows for number in row.thesis)

    def runs(self) -> list[str]:
        """The runs that it needs, each once, in the order of the rows."""
        names = [self.minus, self.against, *(row.run for row in self.rows)]
        return list(dict.fromkeys(name for name in names if name is not None))


def _read() -> dict[str, Any]:
    return json.loads((Path(bundle_root()) / "configs" / _FILE).read_text())


def load_runs() -> dict[str, Run]:
    """All runs by name."""
    return {
        name: Run(tuple(run.get("configs", ())), run.get("options", {}), tuple(run.get("average", ())))
        for name, run in _read()["runs"].items()
    }


def load_tables(cohort: str = "atlas") -> dict[str, Table]:
    """All tables by name.

    Args:
        cohort: whose columns are the thesis's numbers: ``"atlas"`` or ``"isles"``, which has two of the tables.

    Raises:
        InputError: when the thesis has no such cohort.
    """
    if cohort not in ("atlas", "isles"):
        raise InputError(f"The thesis has no cohort {cohort!r}: choose atlas or isles.")
    tables = {}
    for name, told in _read()["tables"].items():
        rows = [
            Row(row["row"], row["run"], _numbers(row.get("thesis", {}).get(cohort), len(told["columns"])))
            for row in told["rows"]
        ]
        more = {key: told[key] for key in ("minus", "against", "note") if key in told}
        tables[name] = Table(name, told["title"], tuple(told["columns"]), tuple(rows), **more)
    return tables


def _numbers(printed: Sequence[float | None] | None, count: int) -> tuple[float, ...]:
    if printed is None:
        return (math.nan,) * count
    return tuple(math.nan if number is None else number for number in printed)


# What it looks like


def _shown(column: str, number: float, sign: bool = False) -> str:
    if math.isnan(number):
        return "-"
    form = ".2g" if column.startswith("p_") else ",.0f" if column in ("parameters", "flops") else ".3f"
    return format(number, f"+{form}" if sign else form)


def _cells(row: Row, columns: Sequence[str], here: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Column, the thesis's number and ours, NaN where there is none; p is both tests'."""
    for column, printed in zip(columns, row.thesis, strict=True):
        for name in ("p_wilcoxon", "p_t_test") if column == "p" else (column,):
            yield name, printed, here.get(name, math.nan)


def to_markdown(filled: Table, here: Sequence[Mapping[str, float]]) -> str:
    """The table, in which each column stands three times: the thesis's number, ours, and how much ours is above it.

    Ours stand alone in a table that is not the thesis's.

    Args:
        filled: the table.
        here: our numbers of each row, by column; ``p_wilcoxon`` and ``p_t_test`` for ``"p"``.
    """
    lines = []
    for row, ours in zip(filled.rows, here, strict=True):
        line = [row.title]
        for column, printed, number in _cells(row, filled.columns, ours):
            difference = _shown(column, number - printed, sign=True)
            three = [_shown(column, printed), _shown(column, number), difference]
            line += three if filled.is_of_thesis else three[1:2]
        lines.append(line)
    names = [name for name, _, _ in _cells(filled.rows[0], filled.columns, {})]
    header = [_HEADERS[name] for name in names]
    if filled.is_of_thesis:
        header = [f"{name}, {whose}" for name in header for whose in ("thesis", "here", "difference")]
    return table(["method", *header], lines)


def to_csv(filled: Table, here: Sequence[Mapping[str, float]]) -> str:
    """A line for each number: method, column, thesis, here, difference; an empty cell is a number that is not there.

    Args:
        filled: the table.
        here: our numbers of each row, by column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "column", "thesis", "here", "difference"])
    for row, ours in zip(filled.rows, here, strict=True):
        for column, printed, number in _cells(row, filled.columns, ours):
            numbers = (printed, number, number - printed)
            writer.writerow([row.title, column, *("" if math.isnan(n) else f"{n:.12g}" for n in numbers)])
    return text.getvalue()
