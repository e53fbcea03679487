"""The table of a training's validations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from bundle.handlers import ValidationTable, validation_metrics


def test_cases_are_grouped_by_lesion_volume_and_those_without_give_the_false_volume() -> None:
    """True, found and overlapping volume: DSC 2 * 0.2 / 0.8, 2 * 0.5 / 1.5, 2 * 1 / 4, 0, 2 * 40 / 110."""
    cases = [
        (0.4, 0.4, 0.2),
        (0.5, 1.0, 0.5),
        (1.9, 2.1, 1.0),
        (49.0, 0.0, 0.0),
        (50.0, 60.0, 40.0),
        (0.0, 0.0, 0.0),
        (0.0, 3.0, 0.0),
        (0.0, 0.5, 0.0),
    ]
    values = validation_metrics(np.array(cases))
    each = [0.5, 2 / 3, 0.5, 0.0, 80 / 110]
    assert values == pytest.approx(
        {
            "dsc": sum(each) / 5,
            "dsc_<0.5": 0.5,
            "dsc_0.5-2": (2 / 3 + 0.5) / 2,
            "dsc_2-10": float("nan"),
            "dsc_10-50": 0.0,
            "dsc_>=50": 80 / 110,
            "false_ml": 0.5,
            "false_ml_max": 3.0,
        },
        nan_ok=True,
    )


def masks(found: int, true: int) -> dict[str, torch.Tensor]:
    """The first ``found`` and the first ``true`` voxels of 1000."""
    number = torch.arange(1000).reshape(1, 10, 10, 10)
    return {"pred": (number < found).float(), "label": (number < true).float()}


def test_a_row_is_added_after_each_validation_at_its_iteration(tmp_path: Path) -> None:
    """Voxels of 2 mm: 100 voxels are 0.8 mL, of which half is found; without lesion 25 are 0.2 mL."""
    table = ValidationTable(str(tmp_path), iterations_per_epoch=500, spacing_mm=2.0)
    for epoch, found in ((4, 50), (8, 100)):
        state = SimpleNamespace(output=[masks(found, 100), masks(25, 0)], epoch=epoch, metrics={})
        engine: Any = SimpleNamespace(state=state)
        table.cases.clear()
        table.add(engine)
        table.finish(engine)
        assert state.metrics["dsc"] == pytest.approx(2 * found / (found + 100))
        assert state.metrics["false_ml_max"] == pytest.approx(0.2)
    rows = (tmp_path / "validation.csv").read_text().splitlines()
    assert rows[0] == "iteration,dsc,dsc_<0.5,dsc_0.5-2,dsc_2-10,dsc_10-50,dsc_>=50,false_ml,false_ml_max"
    assert [row.split(",")[0] for row in rows[1:]] == ["2000", "4000"]
    assert [row.split(",")[4] for row in rows[1:]] == ["", ""]  # no case of 2 to 10 mL


def test_every_validation_starts_from_zero(tmp_path: Path) -> None:
    table = ValidationTable(str(tmp_path), iterations_per_epoch=1, spacing_mm=1.0)
    evaluator = Engine(lambda engine, batch: batch)
    table.attach(evaluator)
    for found in (50, 100):
        evaluator.run([[masks(found, 100)]], max_epochs=1)
        assert evaluator.state.metrics["dsc"] == pytest.approx(2 * found / (found + 100))
