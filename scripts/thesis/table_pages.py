"""The pages of the thesis's tables: its numbers, ours, and the difference, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bundle.errors import InputError
from bundle.files import write_atomically
from bundle.metrics import SIZE_BINS, dsc_by_volume, summarize
from bundle.templates import render
from scripts.thesis.complexity import complexity_table, parameters_and_flops
from scripts.thesis.evaluations import Cases, compare_paired
from scripts.thesis.experiment_runs import Experiments
from scripts.thesis.markdown import table
from scripts.thesis.tables import Row, Table

__all__ = ["row_numbers", "save_table", "to_csv", "to_markdown"]

_TEMPLATE = Path(__file__).parent / "templates" / "table.md"
_HEADERS = {
    "dsc": "DSC",
    "dsc_sd": "DSC, sd",
    "dsc_global": "DSC(G)",
    "asd_mm": "ASD, mm",
    "hd95_mm": "HD95, mm",
    "jaccard": "Jaccard",
    "p_wilcoxon": "p, Wilcoxon",
    "p_t_test": "p, t-test",
    "flops": "FLOPs",
    **{f"dsc_{size}": f"DSC, {size} mL" for size in SIZE_BINS},
}
"""Of the columns that are not called by their own name."""


def row_numbers(table: Table, row: Row, done: Mapping[str, Cases]) -> dict[str, float]:
    """Return what the tests of a row's run gave, by column; nothing where there are none.

    Raises:
        InputError: when the run that it is compared with was tested on other cases.
    """
    if row.run is None or not done.get(row.run):
        return {}
    cases = done[row.run]
    numbers = summarize(list(cases.values()))
    numbers |= {f"dsc_{size}": dsc for size, (dsc, _) in dsc_by_volume(list(cases.values())).items()}
    reference = table.minus or table.against
    if reference in (None, row.run) or not (other := done.get(reference)):
        return numbers
    if list(other) != list(cases):
        raise InputError(f"{row.run} was tested on other cases than {reference}: clear one of them.")
    if table.minus:
        base = summarize(list(other.values()))
        numbers = {name: base[name] - numbers[name] for name in ("asd_mm", "hd95_mm")}
    tested = compare_paired(*([case["dsc"] for case in of.values()] for of in (other, cases)))
    return {**numbers, "p_wilcoxon": tested.wilcoxon_p, "p_t_test": tested.t_p}


def save_table(table: Table, work: Experiments) -> None:
    """Write <table>.md and .csv of the runs that are tested, and print which are not."""
    done = {name: work.cases(name) for name in table.runs()}
    here = [row_numbers(table, row, done) for row in table.rows]
    parsers = {row.title: work.parser(row.run) for row in table.rows if row.run}
    if "parameters" in table.columns:
        for row, numbers in zip(table.rows, here, strict=True):
            numbers |= parameters_and_flops(parsers[row.title])
    cases = list(max(done.values(), key=len, default={}).values())
    page = render(
        _TEMPLATE,
        table=table,
        settings={**({"overlays": list(work.overlays)} if work.overlays else {}), **work.options},
        count=len(cases),
        sizes={size: count for size, (_, count) in dsc_by_volume(cases).items() if count},
        numbers=to_markdown(table, here),
        complexity=complexity_table(parsers) if "flops" in table.columns else "",
    )
    write_atomically(page, work.output / f"{table.name}.md")
    write_atomically(to_csv(table, here), work.output / f"{table.name}.csv")
    left = [name for name, cases_of in done.items() if not cases_of]
    print(f"{work.output / table.name}.md" + (f", without {', '.join(left)}" if left else ""))


def _shown(column: str, number: float, sign: str = "") -> str:
    if math.isnan(number):
        return "-"
    form = ".2g" if column.startswith("p_") else ",.0f" if column in ("parameters", "flops") else ".3f"
    return format(number, sign + form)


def _cells(row: Row, columns: Sequence[str], here: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Yield column, the thesis's number and ours, NaN where there is none; p is that of both tests."""
    for column, printed in zip(columns, row.thesis, strict=True):
        for name in ("p_wilcoxon", "p_t_test") if column == "p" else (column,):
            yield name, printed, here.get(name, math.nan)


def to_markdown(filled: Table, here: Sequence[Mapping[str, float]]) -> str:
    """Return the table with three columns for each: the thesis's number, ours, and the difference of ours to it.

    A table that is not the thesis's has our numbers alone.

    Args:
        filled: the table.
        here: our numbers of each row, by column; ``p_wilcoxon`` and ``p_t_test`` for ``"p"``.
    """
    lines = []
    for row, ours in zip(filled.rows, here, strict=True):
        line = [row.title]
        for column, printed, number in _cells(row, filled.columns, ours):
            three = [_shown(column, printed), _shown(column, number), _shown(column, number - printed, sign="+")]
            line += three if filled.is_of_thesis else three[1:2]
        lines.append(line)
    header = [_HEADERS.get(name, name) for name, _, _ in _cells(filled.rows[0], filled.columns, {})]
    if filled.is_of_thesis:
        header = [f"{name}, {whose}" for name in header for whose in ("thesis", "here", "difference")]
    return table(["method", *header], lines)


def to_csv(filled: Table, here: Sequence[Mapping[str, float]]) -> str:
    """Return a line for each number: method, column, thesis, here, difference; an empty cell is a missing number.

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
