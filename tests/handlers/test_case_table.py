"""The tables of an evaluation: which rows there are, and what each holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from bundle.handlers import CaseTable
from bundle.weights import WeightsSettings, write_settings


def volume(file: str, *lesion: int) -> MetaTensor:
    """A volume ``(1, 4, 4, 4)`` of 1 mm voxels whose lesion is the voxels of these numbers."""
    voxels = torch.zeros(64)
    voxels[list(lesion)] = 1
    return MetaTensor(voxels.reshape(1, 4, 4, 4), affine=torch.eye(4), meta={"filename_or_obj": file})


def case(image: str, label: str, predicted: int) -> dict[str, MetaTensor]:
    """A case whose lesion is four voxels in a row; the first ``predicted`` of them are found."""
    found = volume(image, *range(predicted))
    return {"image": volume(image), "label": volume(label, 0, 1, 2, 3), "pred": found}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "weights" / "model.pt"
    write_settings(file, WeightsSettings("native", 1.0, "brain", 192, (-2, -1, 0, 1)))
    torch.save({}, file)
    return file


def evaluate(weights: Path, output: Path, *cases: dict[str, MetaTensor]) -> dict[str, list[tuple[str, float]]]:
    """Names and one value of the rows of both tables, after an evaluation of the cases one by one."""
    engine = Engine(lambda engine, item: [item])
    CaseTable(str(output), str(weights)).attach(engine)
    engine.run(cases)
    rows = {}
    for table, value in (("cases", "recall"), ("lesions", "share")):
        with (output / f"{table}.csv").open() as stream:
            rows[table] = [(row["case"], float(row[value])) for row in csv.DictReader(stream)]
    return rows


def test_images_that_have_the_same_label_have_a_row_each(weights: Path, tmp_path: Path) -> None:
    cases = case("b.nii", "same.nii", 1), case("a.nii", "same.nii", 4), case("c.nii", "own.nii", 2)
    rows = evaluate(weights, tmp_path, *cases)
    expected = [("own.nii", 0.5), ("a.nii", 1.0), ("b.nii", 0.25)]
    assert rows == {"cases": expected, "lesions": expected}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["cases"] == 3
    assert summary["recall"] == pytest.approx(1.75 / 3)


def test_a_file_whose_name_is_not_utf8_has_its_row(weights: Path, tmp_path: Path) -> None:
    rows = evaluate(weights, tmp_path, case("caf\udce9.nii", "caf\udce9_label.nii", 3))
    assert rows["cases"] == [("caf\\udce9_label.nii", 0.75)]


def test_a_case_that_comes_twice_has_one_row(weights: Path, tmp_path: Path) -> None:
    """The sampler of several processes repeats cases."""
    one = case("a.nii", "a_label.nii", 3)
    rows = evaluate(weights, tmp_path, one, case("b.nii", "b_label.nii", 4), one)
    assert rows["cases"] == [("a_label.nii", 0.75), ("b_label.nii", 1.0)]
