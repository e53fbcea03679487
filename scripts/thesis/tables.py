"""The tables of experiments: which runs fill them, and what the thesis prints in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bundle.errors import InputError
from scripts.thesis.runs import read_config

__all__ = ["Row", "Run", "Table", "load_runs", "load_tables", "run_titles"]


@dataclass(frozen=True)
class Run:
    """A network that is trained and tested once, for every row that shows it.

    Attributes:
        configs: overlays of ``configs/train.json``.
        options: further settings.
        average: runs whose networks are tested together, their logits averaged; then nothing is trained.
    """

    configs: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    average: Sequence[str] = ()

    def members(self, name: str) -> Sequence[str]:
        """Return the names of the runs whose networks are tested: those that are averaged, or its own name."""
        return self.average or (name,)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: the first cell.
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
        minus: the run whose metrics the rows' are subtracted from; None where they are shown as they are.
        against: the run that ``"p"`` compares DSC with.
        note: what a reader has to know of the thesis's numbers.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    minus: str | None = None
    against: str | None = None
    note: str = ""

    @property
    def is_of_thesis(self) -> bool:
        """Whether the thesis prints any of it."""
        return any(not math.isnan(number) for row in self.rows for number in row.thesis)

    def runs(self) -> list[str]:
        """Return the runs that it needs, each once, in the order of the rows."""
        names = [self.minus, self.against, *(row.run for row in self.rows)]
        return list(dict.fromkeys(name for name in names if name is not None))


def load_runs() -> dict[str, Run]:
    """Return all runs by name."""
    return {name: Run(**run) for name, run in read_config("experiments.json")["runs"].items()}


def load_tables(cohort: str = "atlas") -> dict[str, Table]:
    """Return all tables by name.

    Args:
        cohort: whose columns are the thesis's numbers: ``"atlas"`` or ``"isles"``, which has two of the tables.

    Raises:
        InputError: when the thesis has no such cohort.
    """
    if cohort not in ("atlas", "isles"):
        raise InputError(f"The thesis has no cohort {cohort!r}: choose atlas or isles.")
    tables = {}
    for name, table in read_config("experiments.json")["tables"].items():
        rows = []
        for row in table["rows"]:
            printed = row.get("thesis", {}).get(cohort, [None] * len(table["columns"]))
            numbers = tuple(math.nan if number is None else number for number in printed)
            rows.append(Row(row["row"], row["run"], numbers))
        tables[name] = Table(name, **{**table, "rows": rows})
    return tables


def run_titles() -> dict[str, str]:
    """Return the title of each run in the tables, where possible in one that compares whole networks."""
    tables = load_tables()
    rows = [row for name in ("table_4_2", "table_3_2", *tables) for row in tables[name].rows]
    return {row.run: row.title for row in reversed(rows) if row.run}
