"""The thesis's tables: our copy of its numbers against its text, and what comes out for made-up results."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest

from bundle.errors import InputError
from scripts.thesis.experiment import trained_runs
from scripts.thesis.runs import config_files
from scripts.thesis.table_pages import row_numbers, to_csv, to_markdown
from scripts.thesis.tables import Row, Table, load_runs, load_tables
from tests.workflows.conftest import ROOT
from tests.workflows.test_configs import parser_of

THESIS = ROOT.parent / "shared" / "spec" / "000_a1deaea960ce472b.txt"
PARTS = ("coronal", "sagittal", "seed_1", "seed_2")
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:E-\d+)?|(?<![\w.])\d{7,}")


def printed_in(name: str) -> list[float]:
    """All numbers of a table of the thesis, row by row; the names of its rows have none with a point."""
    lines = THESIS.read_text().splitlines()
    caption = f"Table {name[6:].replace('_', '.')} "
    start = max(number for number, line in enumerate(lines) if line.startswith(caption)) + 1
    rows = []
    for line in lines[start:]:
        if "\t" in line:
            rows.append(re.sub(r"alpha = 0\.\d+", "", line.replace("*", "")))
        elif rows:
            break
    return [float(number) for row in rows for number in NUMBER.findall(row)]


@pytest.mark.skipif(not THESIS.exists(), reason="needs the thesis in ../shared/spec")
@pytest.mark.parametrize("name", [name for name in load_tables() if name.startswith("table_")])
def test_every_number_of_the_thesis_is_copied_in_its_place(name: str) -> None:
    atlas, isles = load_tables("atlas")[name], load_tables("isles")[name]
    copied = [
        number
        for rows in zip(atlas.rows, isles.rows, strict=True)
        for row in rows
        for number in row.thesis
        if not math.isnan(number)
    ]
    assert copied == printed_in(name)
    assert len(copied) >= 9


def test_runs_are_all_used_and_their_configs_are_there() -> None:
    runs, tables = load_runs(), load_tables()
    shown = {name for table in tables.values() for name in table.runs()}
    assert shown <= set(runs)
    shown |= {part for run in runs.values() for part in run.average}
    assert set(runs) - shown == {f"tsrl_net_alpha_{alpha}_beta_1" for alpha in (25, 50, 75)}  # of figure 4.8
    missing = [file for run in runs.values() for file in config_files(run.configs) if not Path(file).exists()]
    assert missing == []


def test_options_of_a_run_reach_its_loss() -> None:
    run = load_runs()["tsrl_net_gamma_3_beta_8"]
    parser = parser_of("train.json", *run.configs, **run.options)
    loss = parser.get_parsed_content("loss").final["final"]
    assert (loss.gamma, loss.beta, loss.alpha) == (3, 8, 0.75)


def test_there_is_no_third_cohort() -> None:
    with pytest.raises(InputError, match="no cohort 'brats': choose atlas or isles"):
        load_tables("brats")


TABLE = Table(
    "table_9_1",
    "made up",
    ("dsc", "asd_mm", "p", "parameters"),
    (Row("One", "one", (0.5, 8.0, 0.01, 1000.0)), Row("Literature", None, (0.6, math.nan, math.nan, math.nan))),
)
HERE = [{"dsc": 0.625, "asd_mm": 7.5, "p_wilcoxon": 0.03, "p_t_test": 0.00012, "parameters": 1009.0}, {}]


def test_markdown_has_the_thesis_s_number_ours_and_the_difference() -> None:
    header, _, one, literature = to_markdown(TABLE, HERE).splitlines()
    assert header.startswith("| method | DSC, thesis | DSC, here | DSC, difference | ASD, mm, thesis |")
    assert one == (
        "| One | 0.500 | 0.625 | +0.125 | 8.000 | 7.500 | -0.500 | 0.01 | 0.03 | +0.02 | 0.01 | 0.00012 | -0.0099 "
        "| 1,000 | 1,009 | +9 |"
    )
    assert literature == "| Literature | 0.600" + " | -" * 14 + " |"


def test_a_table_that_the_thesis_does_not_have_shows_our_numbers_alone() -> None:
    ours = Table("t", "", ("dsc", "dsc_>=50"), (Row("One", "one", (math.nan, math.nan)),))
    header, _, one = to_markdown(ours, [{"dsc": 0.625, "dsc_>=50": 0.75}]).splitlines()
    assert header == "| method | DSC | DSC, >=50 mL |"
    assert one == "| One | 0.625 | 0.750 |"


def test_networks_that_are_averaged_are_trained_once_each() -> None:
    runs, table = load_runs(), load_tables()["three_planes"]
    trained = trained_runs(table.runs(), runs)
    assert sorted(trained) == sorted({"tsrl_net", *(f"tsrl_net_{part}" for part in PARTS)})
    parsers = [parser_of("train.json", *runs[name].configs, **runs[name].options) for name in trained]
    planes = [parser.get_parsed_content("plane") for parser in parsers]
    assert sorted(planes) == ["axial", "axial", "axial", "coronal", "sagittal"]


def test_csv_has_a_line_for_each_number() -> None:
    rows = list(csv.DictReader(to_csv(TABLE, HERE).splitlines()))
    assert [row["column"] for row in rows] == ["dsc", "asd_mm", "p_wilcoxon", "p_t_test", "parameters"] * 2
    assert rows[0] == {"method": "One", "column": "dsc", "thesis": "0.5", "here": "0.625", "difference": "0.125"}
    assert rows[6] == {"method": "Literature", "column": "asd_mm", "thesis": "", "here": "", "difference": ""}


# What a row's tests gave


def case(dsc: float, asd: float = 4.0) -> dict[str, float]:
    names = (
        "recall",
        "precision",
        "jaccard",
        "hd95_mm",
        "volume_difference_ml",
        "lesion_f1_overlap",
        "lesion_f1_iou25",
    )
    return {"dsc": dsc, "asd_mm": asd, "true_volume_ml": 5.0, "tp": 1, "fp": 1, "fn": 1} | dict.fromkeys(names, 2 * asd)


DONE = {
    "base": {f"datalist/{n}": case(dsc, 2.0) for n, dsc in enumerate((0.5, 0.6, 0.7, 0.8, 0.9, 1.0))},
    "one": {f"datalist/{n}": case(dsc, 5.0) for n, dsc in enumerate((0.4, 0.4, 0.4, 0.4, 0.4, 0.4))},
}
ROW = Row("One", "one", (math.nan,))


def test_means_are_over_the_cases_and_p_compares_with_the_named_run() -> None:
    numbers = row_numbers(Table("t", "", ("dsc", "p"), (ROW,), against="base"), ROW, DONE)
    assert numbers["dsc"] == pytest.approx(0.4)
    assert numbers["dsc_global"] == pytest.approx(0.5)
    assert numbers["p_wilcoxon"] == pytest.approx(2 / 2**6)  # the smallest that six cases give
    assert numbers["p_t_test"] == pytest.approx(0.00593, abs=1e-5)


def test_a_table_of_differences_subtracts_the_row_from_the_named_run() -> None:
    numbers = row_numbers(Table("t", "", ("asd_mm", "hd95_mm", "p"), (ROW,), minus="base"), ROW, DONE)
    assert numbers["asd_mm"] == pytest.approx(2.0 - 5.0)
    assert numbers["hd95_mm"] == pytest.approx(4.0 - 10.0)
    assert numbers["p_wilcoxon"] == pytest.approx(2 / 2**6)


def test_the_named_run_is_not_compared_with_itself() -> None:
    row = Row("Base", "base", (math.nan,))
    assert "p_wilcoxon" not in row_numbers(Table("t", "", ("p",), (row,), against="base"), row, DONE)


def test_a_run_that_is_not_there_has_no_numbers() -> None:
    assert row_numbers(Table("t", "", ("dsc",), (ROW,)), Row("?", "other", (math.nan,)), DONE) == {}


def test_other_cases_are_refused() -> None:
    done = {**DONE, "base": {f"fold_1/{n}": case(0.5) for n in range(6)}}
    with pytest.raises(InputError, match="one was tested on other cases than base"):
        row_numbers(Table("t", "", ("p",), (ROW,), against="base"), ROW, done)
