"""The loss of a training as a curve: ``python -m scripts.curve RUN [RUN ...] PNG``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.errors import InputError
from bundle.volumes.picture import shrink
from scripts.command import run_command

__all__ = ["curve", "save_loss_curve"]

# Colours of one training and the next, distinct with any kind of colour vision (Okabe and Ito).
_BLUE, _RED = "#0072B2", "#D55E00"

# Iterations over which the loss is averaged.
_WINDOW = 50


def save_loss_curve(runs: Sequence[Sequence[float]], window: int, path: str | Path) -> None:
    """The loss of trainings one behind the other, averaged over a moving window.

    Args:
        runs: the loss of each iteration of each training.
        window: iterations that are averaged, fewer in a shorter training.
        path: the file.
    """
    figure = Figure(figsize=(7, 3.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    first = 0
    for losses, colour in zip(runs, cycle((_BLUE, _RED)), strict=False):
        width = min(window, len(losses))
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axis.plot(first + width + np.arange(len(smooth)), smooth, color=colour, linewidth=1)
        first += len(losses)
    axis.set(xlabel="iteration", ylabel=f"loss, mean of {window} iterations", ylim=(0, None))
    figure.savefig(path, dpi=100)


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


def curve(*runs_and_png: str) -> None:
    """Draws the loss of one or several trainings, one behind the other, into a PNG.

    Args:
        runs_and_png: output folders of trainings in their order, and the file to write.
    """
    *runs, png = runs_and_png
    if not runs:
        raise InputError("A training's output folder and a file to write are expected.")
    save_loss_curve([_losses(Path(run)) for run in runs], _WINDOW, png)
    shrink(png, width=700)
    print(png)


if __name__ == "__main__":
    run_command(curve)
