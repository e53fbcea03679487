"""A table and a figure of the thesis from its command: thin networks on a small simulated cohort."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from scripts.thesis.evaluations import read_cases
from scripts.thesis.experiment import experiment, share_of_machine
from tests.workflows.conftest import FEATURES, ROOT

OPTIONS = {
    "epochs": 2,
    "samples_per_epoch": 16,
    "batch_size": 4,
    "warmup_steps": 1,
    "space": "native",
    "lesion_fraction": 1.0,
    "network_def::features": list(FEATURES),
}


def command(name: str, data: Path, output: Path, *more: str) -> subprocess.CompletedProcess:
    words = [
        sys.executable,
        "-m",
        "scripts.thesis.experiment",
        name,
        "--dataset_dir",
        str(data),
        "--output_dir",
        str(output),
    ]
    for key, value in OPTIONS.items():
        words += [f"--{key}", str(value)]
    return subprocess.run([*words, "--overlays", "cpu.json", *more], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def datalist(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases to train on, one to test."""
    items = json.loads((cohort / "datalist.json").read_text())["training"]
    whole = [{key: str(cohort / item[key]) for key in ("image", "label")} for item in items]
    file = tmp_path_factory.mktemp("prepared") / "datalist.json"
    file.write_text(json.dumps({"training": whole[:3], "test": whole[3:]}))
    return file


@pytest.mark.slow
def test_shards_make_a_table_and_its_figure_needs_no_more_training(datalist: Path, tmp_path: Path) -> None:
    output = tmp_path / "experiments"
    for shard, words in (("1/2", "without table_4_7_reverse_attention"), ("2/2", "table_4_7.md")):
        done = command("table_4_7", datalist.parent, output, "--shard", shard)
        assert done.returncode == 0, done.stderr[-2000:]
        assert words in done.stdout
    rows = list(csv.DictReader((output / "table_4_7.csv").open()))
    assert [row["method"] for row in rows[::3]] == ["Baseline", "+ Reverse attention", "+ CRL"]
    for number, name in enumerate(("table_4_1_baseline", "table_4_7_reverse_attention", "table_4_1_crl")):
        (metrics,) = read_cases(output / name / "datalist" / "test" / "cases.csv").values()
        for row, metric in zip(rows[3 * number :], ("dsc", "recall", "precision"), strict=False):
            assert float(row["here"]) == pytest.approx(metrics[metric], abs=1e-9)
            assert float(row["difference"]) == pytest.approx(metrics[metric] - float(row["thesis"]), abs=1e-9)
    assert "ours are of 1 test cases" in (output / "table_4_7.md").read_text()

    trained = output / "table_4_1_crl" / "datalist" / "train" / "last.pt"
    before = trained.stat().st_mtime_ns
    drawn = command("figure_4_9", datalist.parent, output)
    assert drawn.returncode == 0, drawn.stderr[-2000:]
    assert trained.stat().st_mtime_ns == before
    with Image.open(output / "figure_4_9.png") as image:
        assert np.asarray(image.convert("L")).std() > 20

    other = command("figure_4_9", datalist.parent, output, "--case", "nobody")
    assert other.returncode == 1
    assert "Error: nobody is not a test case: choose from case_3" in other.stderr
    begun = command("table_4_7", datalist.parent, output, "--learning_rate", "0.5")
    assert begun.returncode == 1
    assert "was begun with other options" in begun.stderr


def test_machines_share_the_runs() -> None:
    names = ["a", "b", "c", "d", "e"]
    assert [share_of_machine(names, f"{number}/2") for number in (1, 2)] == [["a", "c", "e"], ["b", "d"]]
    assert share_of_machine(names, None) == names


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b"])
def test_a_shard_that_is_none_is_refused(shard: str) -> None:
    with pytest.raises(InputError, match="--shard must be like 1/4"):
        share_of_machine(["a"], shard)


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no 'table_5_1': choose from table_3_1, .*figure_4_9"):
        experiment("table_5_1", str(tmp_path))


def test_a_folder_without_datalist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither datalist\.json nor fold_1\.json"):
        experiment("table_4_7", str(tmp_path))
