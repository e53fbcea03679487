"""The thesis's tables and figures, made here: ``python -m scripts.thesis.experiment table_4_6 --dataset_dir DATA``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from scripts.command import run_command
from scripts.thesis.runs import keep_plan, train_settings
from scripts.thesis.tables import Run, load_runs, load_tables

__all__ = ["experiment", "share_of_machine", "trained_runs"]


def experiment(
    name: str,
    dataset_dir: str,
    output_dir: str = "runs/experiments",
    cohort: str = "atlas",
    overlays: Sequence[str] = (),
    shard: str | None = None,
    case: str | None = None,
    **options: Any,
) -> None:
    """Train and test what a table or figure of the thesis needs and is not there yet, and write it.

    A table is OUTPUT_DIR/<name>.md and .csv: the thesis's numbers, ours, and the difference. A figure is <name>.png.
    Runs are shared by all tables and figures; one that was stopped continues from its last epoch. Runs that are
    missing, for instance on the other machines of a shard, are left out of the table and named.

    Args:
        name: table_3_1 to table_3_8, table_4_1 to table_4_7, a figure, or one of mixed_granularity and three_planes,
            which go beyond the thesis (docs/reproduce.md).
        dataset_dir: a datalist or a folder of them, of scripts.prepare; the test cases of folds are pooled.
        output_dir: the folder to write to.
        cohort: whose numbers of the thesis are shown: atlas or isles.
        overlays: configs after each network's own, such as cpu.json for a budget that fits two cores.
        shard: 2/4 trains the second machine's part of four.
        case: the test case of a figure that shows one, as the datalist names it, or by its label's file; the one with
            most lesion by default.
        options: further settings of configs/train.json for all networks, such as --epochs 3.
    """
    from bundle.data import load_datalist
    from scripts.thesis.experiment_runs import Experiments, find_datalists
    from scripts.thesis.figures import FIGURES, save_figure
    from scripts.thesis.table_pages import save_table

    runs, tables = load_runs(), load_tables(cohort)
    if name not in tables and name not in FIGURES:
        raise InputError(f"There is no {name!r}: choose from {', '.join([*tables, *FIGURES])}.")
    work = Experiments(find_datalists(dataset_dir), Path(output_dir).resolve(), tuple(overlays), options)
    cases = {file.stem: [len(load_datalist(file, part)) for part in ("training", "test")] for file in work.datalists}
    keep_plan(work.output / "experiments.json", {"options": options, "overlays": list(work.overlays), "cases": cases})
    needed = tables[name].runs() if name in tables else FIGURES[name].runs
    for one in share_of_machine(trained_runs(needed, runs), shard):
        work.train(one)
        work.test(one)
    for one in needed:
        if runs[one].average and shard is None:
            work.test(one)
    if name in tables:
        save_table(tables[name], work)
    else:
        save_figure(name, work, case)


def share_of_machine(names: Sequence[str], shard: str | None) -> list[str]:
    """Return the runs of one machine of several: every n-th.

    Raises:
        InputError: when the shard is not like ``"1/4"``.
    """
    if shard is None:
        return list(names)
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard must be like 1/4, the first machine of four; got {shard}.")
    return list(names[int(number) - 1 :: int(count)])


def trained_runs(needed: Sequence[str], runs: Mapping[str, Run]) -> list[str]:
    """Return the runs that are trained for these: themselves, or those that they average."""
    return list(dict.fromkeys(member for name in needed for member in runs[name].members(name)))


if __name__ == "__main__":
    run_command(experiment, train_settings)
