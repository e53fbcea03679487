"""Loss and validations of a training as curves: ``python -m scripts.curve RUN [RUN ...] PNG``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import cycle
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bundle.errors import InputError
from scripts.command import run_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    """Draw the loss of trainings one after the other, averaged over a moving window, and below it their validations.

    Args:
        runs: the loss of each iteration of each training.
        validations: of each training, by iteration: the values of ``bundle.handlers.validation_metrics``. Where there
            are none, only the loss is drawn.
        window: iterations that are averaged, fewer in a shorter training.
        path: the file.
    """
    from matplotlib.figure import Figure

    panels = 3 if any(validations) else 1
    figure = Figure(figsize=(7, 3.2 + 2.4 * (panels - 1)), layout="constrained")
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
    from matplotlib import colormaps

    from bundle.handlers import VALIDATION_SIZES

    shades = colormaps["viridis"](np.linspace(0.9, 0.1, len(VALIDATION_SIZES)))
    for axis, name, label, colour in (
        *((dsc, f"dsc_{size}", f"{size} mL", shade) for size, shade in zip(VALIDATION_SIZES, shades, strict=True)),
        (dsc, "dsc", "all", "black"),
        (false_ml, "false_ml", "median", _BLUE),
        (false_ml, "false_ml_max", "maximum", _RED),
    ):
        axis.plot(list(rows), [row[name] for row in rows.values()], label=label, color=colour)
    dsc.set(ylabel="DSC, simulated lesions", ylim=(0, 1))
    dsc.legend(frameon=False, fontsize="small", ncols=3)
    false_ml.set(ylabel="mL found without lesion", ylim=(0, None))
    false_ml.legend(frameon=False, fontsize="small")


def _losses(run: Path) -> list[float]:
    """Return the loss of each iteration; of a resumed training the last value of an iteration counts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    """Return the rows of ``validation.csv`` by iteration; of a resumed training the last row of an iteration counts."""
    file = run / "validation.csv"
    rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
    numbers = [{name: float(value) if value else nan for name, value in row.items()} for row in rows]
    by_iteration = {int(row.pop("iteration")): row for row in numbers}
    return dict(sorted(by_iteration.items()))


def curve(*runs_and_png: str) -> None:
    """Draw the loss of one or several trainings, one after the other, into a PNG, and their validations below.

    Validations are DSC by lesion volume, and the volume that is found in cases without lesion.

    Args:
        runs_and_png: output folders of trainings in their order, and the file to write.
    """
    from bundle.volumes.picture import shrink

    if len(runs_and_png) < 2:
        raise InputError("A training's output folder and a file to write are expected.")
    *folders, png = map(Path, runs_and_png)
    save_training_curves([_losses(run) for run in folders], [_validations(run) for run in folders], _WINDOW, png)
    shrink(png, width=700)
    print(png)


if __name__ == "__main__":
    run_command(curve)
