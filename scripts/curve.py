"""Loss and validations of a training as curves: ``python -m scripts.curve RUN [RUN ...] PNG``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import cycle
from math import nan
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.errors import InputError
from bundle.handlers import VALIDATION_SIZES
from bundle.volumes.picture import shrink
from scripts.command import run_command

__all__ = ["curve", "save_training_curves"]

# Distinct with any kind of colour vision (Okabe and Ito).
_BLUE, _RED = "#0072B2", "#D55E00"

# Iterations over which the loss is averaged.
_WINDOW = 50


def save_training_curves(
    runs: Sequence[Sequence[float]],
    validations: Sequence[Mapping[int, Mapping[str, float]]],
    window: int,
    path: str | Path,
) -> None:
    """The loss of trainings one behind the other, averaged over a moving window; below it what was validated.

    Args:
        runs: the loss of each iteration of each training.
        validations: of each training, by iteration: the values of ``bundle.handlers.validation_metrics``. Where there
            are none, only the loss is drawn.
        window: iterations that are averaged, fewer in a shorter training.
        path: the file.
    """
    panels = 3 if any(validations) else 1
    figure = Figure(figsize=(7, 3.2 + 2.4 * (panels - 1)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(panels, sharex=True, squeeze=False)[:, 0]
    first, rows = 0, dict[int, Mapping[str, float]]()
    for losses, validated, colour in zip(runs, validations, cycle((_BLUE, _RED)), strict=False):
        width = min(window, len(losses))
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes[0].plot(first + width + np.arange(len(smooth)), smooth, color=colour, linewidth=1)
        rows |= {first + iteration: row for iteration, row in validated.items()}
        first += len(losses)
    axes[0].set(ylabel=f"loss, mean of {window} iterations", ylim=(0, None))
    if rows:
        _draw_validations(axes[1], axes[2], rows)
    axes[-1].set(xlabel="iteration")
    figure.savefig(path, dpi=100)


def _draw_validations(dsc: Axes, false_ml: Axes, rows: Mapping[int, Mapping[str, float]]) -> None:
    iterations = list(rows)
    sizes = {f"dsc_{size}": f"{size} mL" for size in VALIDATION_SIZES}
    for (name, label), shade in zip(sizes.items(), np.linspace(0.9, 0.1, len(sizes)), strict=True):
        dsc.plot(iterations, [row[name] for row in rows.values()], label=label, color=colormaps["viridis"](shade))
    dsc.plot(iterations, [row["dsc"] for row in rows.values()], label="all", color="black")
    dsc.set(ylabel="DSC, simulated lesions", ylim=(0, 1))
    dsc.legend(frameon=False, fontsize="small", ncols=3)
    for name, label, colour in (("false_ml", "median", _BLUE), ("false_ml_max", "maximum", _RED)):
        false_ml.plot(iterations, [row[name] for row in rows.values()], label=label, color=colour)
    false_ml.set(ylabel="mL found without lesion", ylim=(0, None))
    false_ml.legend(frameon=False, fontsize="small")


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
    rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
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
    run_command(curve)
