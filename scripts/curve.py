"""Loss and validations of a training as curves: ``python -m scripts.curve RUN [RUN ...] PNG``."""

from __future__ import annotations

from math import nan
from pathlib import Path

import fire
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.errors import InputError, print_input_errors_as_sentences
from scripts.charts import save_training_curves, shrink
from scripts.evaluations import read_rows

__all__ = ["curve"]

# Iterations over which the loss is averaged.
_WINDOW = 50


def _losses(run: Path) -> list[float]:
    """The loss of each iteration; of a resumed training the last value of an iteration counts."""
    losses: dict[int, float] = {}
    for file in sorted(run.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        if "loss" in events.Tags()["scalars"]:
            losses |= {event.step: event.value for event in events.Scalars("loss")}
    if not losses:
        raise InputError(f"{run} holds no loss: the output folder of a training is expected.")
    return [losses[step] for step in sorted(losses)]


def _validations(run: Path) -> dict[int, dict[str, float]]:
    """The rows of ``validation.csv`` by iteration; of a resumed training the last row of an iteration counts."""
    file = run / "validation.csv"
    rows = read_rows(file) if file.exists() else []
    numbers = [{name: float(value) if value else nan for name, value in row.items()} for row in rows]
    by_iteration = {int(row.pop("iteration")): row for row in numbers}
    return dict(sorted(by_iteration.items()))


def curve(*runs_and_png: str) -> None:
    """Draws the loss of one or several trainings, one behind the other, into a PNG, and their validations below.

    Validations are DSC by lesion volume, and the volume that is found in cases without lesion.

    Args:
        runs_and_png: output folders of trainings in their order, and the file to write.
    """
    *runs, png = runs_and_png
    if not runs:
        raise InputError("A training's output folder and a file to write are expected.")
    folders = [Path(run) for run in runs]
    save_training_curves([_losses(run) for run in folders], [_validations(run) for run in folders], _WINDOW, png)
    shrink(png, width=700)
    print(png)


if __name__ == "__main__":
    print_input_errors_as_sentences()
    fire.Fire(curve)
