"""The thesis's tables and figures, made here: ``python -m scripts.thesis.experiment table_4_6 --dataset_dir DATA``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from bundle.data import load_datalist
from bundle.errors import InputError
from bundle.files import write_atomically
from bundle.metrics import dsc_by_volume, summarize
from scripts.command import run_command
from scripts.thesis.complexity import complexity_table, parameters_and_flops
from scripts.thesis.evaluations import compare_paired
from scripts.thesis.experiment_runs import Cases, Experiments, find_datalists
from scripts.thesis.figures import FIGURES, Request
from scripts.thesis.runs import keep_plan, train_settings
from scripts.thesis.tables import Row, Run, Table, load_runs, load_tables, to_csv, to_markdown

__all__ = ["experiment", "row_numbers", "share_of_machine", "trained_runs"]

_TESTS = "p: two-sided paired tests of DSC over the cases, Wilcoxon's and the t-test, which the thesis seems to use."


def row_numbers(table: Table, row: Row, done: Mapping[str, Cases]) -> dict[str, float]:
    """What a row's tests gave, by column; nothing where it has none."""
    if row.run is None or row.run not in done:
        return {}
    cases, other = done[row.run], done.get(table.minus or table.against or row.run, done[row.run])
    numbers = summarize(list(cases.values()))
    numbers |= {f"dsc_{size}": dsc for size, (dsc, _) in dsc_by_volume(list(cases.values())).items()}
    if other is cases:
        return numbers
    if list(other) != list(cases):
        raise InputError(f"{row.run} was tested on other cases than {table.minus or table.against}: clear one of them.")
    if table.minus:
        base = summarize(list(other.values()))
        numbers = {name: base[name] - numbers[name] for name in ("asd_mm", "hd95_mm")}
    tested = compare_paired(*([case["dsc"] for case in of.values()] for of in (other, cases)))
    return {**numbers, "p_wilcoxon": tested.wilcoxon_p, "p_t_test": tested.t_p}


def _told_of_cases(table: Table, cases: Sequence[Mapping[str, float]]) -> str:
    """What our numbers are of."""
    if table.is_of_thesis:
        whose = f"The thesis's numbers are of its cohort, training and cases; ours are of {len(cases)} test cases"
        return f"{whose}, each network trained once."
    sizes = ", ".join(f"{count} of {size} mL" for size, (_, count) in dsc_by_volume(cases).items() if count)
    return f"Of {len(cases)} test cases ({sizes}), each network trained once; the thesis has no such table."


def _page(table: Table, here: Sequence[Mapping[str, float]], cases: Cases, work: Experiments) -> str:
    told = _told_of_cases(table, list(cases.values()))
    if "p" in table.columns:
        told += f" {_TESTS}"
    note = f"\n{table.note}\n" if table.note else ""
    settings = {**({"overlays": list(work.overlays)} if work.overlays else {}), **work.options}
    options = "".join(f' --{name} "{value}"' for name, value in settings.items())
    return f"""# {table.name.replace("_", " ", 1).replace("_", ".").capitalize()}: {table.title}

```
python -m scripts.thesis.experiment {table.name} --dataset_dir DATA{options}
```

{told}
{note}
{to_markdown(table, here)}
"""


def _save_table(table: Table, work: Experiments, runs: Mapping[str, Run]) -> None:
    """Writes <table>.md and .csv of what is there."""
    done = {name: cases for name in table.runs() if (cases := work.cases(name)) is not None}
    here = [row_numbers(table, row, done) for row in table.rows]
    parsers = {row.title: partial(work.parser, runs[row.run]) for row in table.rows if row.run}
    if "parameters" in table.columns:
        for row, numbers in zip(table.rows, here, strict=True):
            numbers |= parameters_and_flops(parsers[row.title]())
    page = _page(table, here, max(done.values(), key=len, default={}), work)
    if "flops" in table.columns:
        page += f"\n{complexity_table(parsers)}"
    write_atomically(page, work.output / f"{table.name}.md")
    write_atomically(to_csv(table, here), work.output / f"{table.name}.csv")
    left = [name for name in table.runs() if name not in done]
    print(f"{work.output / table.name}.md" + (f", without {', '.join(left)}" if left else ""))


def _save_figure(name: str, work: Experiments, runs: Mapping[str, Run], case: str | None) -> None:
    """Writes <name>.png, where all that it shows is there."""
    left = [run for run in FIGURES[name].runs if work.cases(run) is None]
    if left:
        print(f"{name} waits for {', '.join(left)}.")
        return
    path = work.output / f"{name}.png"
    FIGURES[name].save(Request(work, runs, case, path))
    print(path)


def share_of_machine(names: Sequence[str], shard: str | None) -> list[str]:
    """The runs of one machine of several: every n-th."""
    if shard is None:
        return list(names)
    try:
        number, count = (int(part) for part in shard.split("/"))
        if not 1 <= number <= count:
            raise ValueError
    except ValueError:
        raise InputError(f"--shard must be like 1/4, the first machine of four; got {shard}.") from None
    return list(names[number - 1 :: count])


def trained_runs(needed: Sequence[str], runs: Mapping[str, Run]) -> list[str]:
    """The runs that are trained for these: themselves, or those that they average."""
    return list(dict.fromkeys(part for name in needed for part in runs[name].average or (name,)))


def experiment(
    name: str,
    dataset_dir: str,
    output_dir: str = "runs/experiments",
    cohort: str = "atlas",
    overlays: str | Sequence[str] = (),
    shard: str | None = None,
    case: str | None = None,
    **options: Any,
) -> None:
    """Trains and tests what a table or figure of the thesis needs and is not there yet, and writes it.

    A table is OUTPUT_DIR/<name>.md and .csv: the thesis's numbers, ours, and the difference. A figure is <name>.png.
    Runs are shared by all that needs them; one that was stopped goes on from its last epoch. What is missing,
    for instance on the other machines of a shard, is left out of the table, and said.

    Args:
        name: table_3_1 to table_3_8, table_4_1 to table_4_7, a figure, or what goes beyond the thesis,
            mixed_granularity and three_planes: see docs/reproduce.md.
        dataset_dir: a datalist or a folder of them, of scripts.prepare; the test cases of folds are pooled.
        output_dir: the folder to write to.
        cohort: whose numbers of the thesis stand beside: atlas or isles.
        overlays: configs after each network's own, such as cpu.json for a budget that two cores bear.
        shard: 2/4 trains the second machine's part of four.
        case: the test case of a figure that shows one, as the datalist names it, or by its label's file; the one with
            most lesion by default.
        options: further settings of configs/train.json for all networks, such as --epochs 3.
    """
    runs, tables = load_runs(), load_tables(cohort)
    if name not in tables and name not in FIGURES:
        raise InputError(f"There is no {name!r}: choose from {', '.join([*tables, *FIGURES])}.")
    work = Experiments(find_datalists(dataset_dir), Path(output_dir).resolve(), ensure_tuple(overlays), options)
    cases = {file.stem: [len(load_datalist(file, part)) for part in ("training", "test")] for file in work.datalists}
    keep_plan(work.output / "experiments.json", {"options": options, "overlays": list(work.overlays), "cases": cases})
    needed = tables[name].runs() if name in tables else list(FIGURES[name].runs)
    for one in share_of_machine(trained_runs(needed, runs), shard):
        work.finish(one, runs[one])
    for one in needed:
        if runs[one].average and shard is None:
            work.finish_average(one, runs)
    if name in tables:
        _save_table(tables[name], work, runs)
    else:
        _save_figure(name, work, runs, case)


if __name__ == "__main__":
    run_command(experiment, train_settings)
