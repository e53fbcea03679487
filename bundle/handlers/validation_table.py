"""The table of a training's validations, by lesion size."""

from __future__ import annotations

import csv
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import evenly_divisible_all_gather

__all__ = ["VALIDATION_SIZES", "ValidationTable", "validation_metrics"]

_EDGES_ML = (0.5, 2.0, 10.0, 50.0)
VALIDATION_SIZES = ("<0.5", "0.5-2", "2-10", "10-50", ">=50")
"""Lesion volumes of cases in mL; the lower limit belongs to a bin, the upper one does not."""


class ValidationTable:
    """Handler that adds a row to ``validation.csv`` after each validation and its values to the evaluator's metrics.

    The columns are ``iteration``, of the training; ``dsc``, the mean over the cases with lesion; ``dsc_<size>``, the
    mean over those whose lesion volume is in one of :data:`VALIDATION_SIZES`; ``false_ml`` and ``false_ml_max``, median
    and maximum of the predicted volume in cases without lesion. A mean of no case is NaN, in the table an empty cell.
    A resumed training may add a second row for an iteration; the last one counts.

    Args:
        output_dir: the folder to write to.
        iterations_per_epoch: iterations in an epoch of the training.
        spacing_mm: voxel size of the masks, equal along all axes.
    """

    def __init__(self, output_dir: str, iterations_per_epoch: int, spacing_mm: float) -> None:
        self.path = Path(output_dir) / "validation.csv"
        self.iterations_per_epoch = iterations_per_epoch
        self.voxel_ml = spacing_mm**3 / 1000
        self.cases: list[tuple[float, float, float]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, before handlers that use its metrics.

        Its output is decollated: ``pred`` and ``label`` are ``(1, H, W, D)``.
        """
        engine.add_event_handler(Events.STARTED, lambda: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)

    def add(self, engine: Engine) -> None:
        """Add the cases of one iteration: true volume, predicted volume and volume of the overlap in mL."""
        for item in engine.state.output:
            pred, label = item["pred"] > 0, item["label"] > 0
            true_ml, found_ml, overlap_ml = (float(mask.sum()) * self.voxel_ml for mask in (label, pred, pred & label))
            self.cases.append((true_ml, found_ml, overlap_ml))

    def finish(self, engine: Engine) -> None:
        """Compute the row over the cases of all processes; the first process writes it."""
        cases = torch.tensor(self.cases, dtype=torch.float64).reshape(-1, 3)
        gathered = evenly_divisible_all_gather(cases)  # one process can have more cases than another
        row = validation_metrics(gathered.numpy())
        engine.state.metrics.update(row)
        if idist.get_rank() == 0:
            self._write({"iteration": engine.state.epoch * self.iterations_per_epoch, **row})

    def _write(self, row: dict[str, float]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as table:
            writer = csv.DictWriter(table, list(row), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow({name: "" if value != value else value for name, value in row.items()})


def validation_metrics(cases: np.ndarray) -> dict[str, float]:
    """Return the values of one row of :class:`ValidationTable`.

    Args:
        cases: ``(N, 3)``: true volume, predicted volume and volume of the overlap of each case, in mL.
    """
    true_ml, found_ml, overlap_ml = cases.T
    lesion = true_ml > 0
    dsc = 2 * overlap_ml[lesion] / (true_ml + found_ml)[lesion]
    sizes = np.digitize(true_ml[lesion], _EDGES_ML)
    by_size = {f"dsc_{name}": _mean(dsc[sizes == number]) for number, name in enumerate(VALIDATION_SIZES)}
    false_ml = found_ml[~lesion]
    median, most = (float(np.median(false_ml)), float(false_ml.max())) if len(false_ml) else (np.nan, np.nan)
    return {"dsc": _mean(dsc), **by_size, "false_ml": median, "false_ml_max": most}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
