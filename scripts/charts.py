"""Charts of results, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bundle.handlers import VALIDATION_SIZES

__all__ = ["save_dsc_boxes", "save_dsc_by_volume", "save_recall_pairs", "save_training_curves", "shrink"]

# Told apart with any kind of colour vision (Okabe and Ito).
_BLUE, _RED = "#0072B2", "#D55E00"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """One chart; the size is in inches."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def save_dsc_boxes(dsc: Mapping[str, Sequence[float]], path: str | Path, case: str = "test case") -> None:
    """A box plot per network: quartiles, whiskers to 1.5 interquartile ranges, the mean as a dot.

    Args:
        dsc: of the cases, by network.
        path: the file.
        case: what a case is called.
    """
    figure, axis = _figure(7, 0.45 * len(dsc) + 1)
    mean = {"marker": "o", "markerfacecolor": _RED, "markeredgecolor": _RED, "markersize": 4}
    axis.boxplot(
        list(dsc.values()),
        orientation="horizontal",
        tick_labels=list(dsc),
        showmeans=True,
        meanprops=mean,
        medianprops={"color": _BLUE},
    )
    axis.invert_yaxis()
    axis.set(xlabel=f"DSC of a {case}", xlim=(-0.02, 1.02))
    figure.savefig(path, dpi=100)


def save_recall_pairs(
    recall: Sequence[float],
    against: Sequence[float],
    titles: tuple[str, str],
    path: str | Path,
    case: str = "test case",
) -> None:
    """Recall of each case by two networks, in the order of the second; blue where the first is higher, red where lower.

    Args:
        recall: of the first network.
        against: of the second, for the same cases.
        titles: of the two.
        path: the file.
        case: what a case is called.
    """
    order = np.argsort(against, kind="stable")
    first, second = np.asarray(recall)[order], np.asarray(against)[order]
    x = 1 + np.arange(len(order))
    figure, axis = _figure(7, 3.2)
    axis.fill_between(x, first, second, where=first >= second, interpolate=True, color=_BLUE, alpha=0.35, linewidth=0)
    axis.fill_between(x, first, second, where=first <= second, interpolate=True, color=_RED, alpha=0.35, linewidth=0)
    axis.plot(x, first, color=_BLUE, linewidth=1, label=titles[0])
    axis.plot(x, second, color=_RED, linewidth=1.5, label=titles[1])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel=f"{case}, by recall of {titles[1]}", ylabel="recall", ylim=(-0.02, 1.02))
    axis.legend(frameon=False)
    figure.savefig(path, dpi=100)


def save_dsc_by_volume(volumes_ml: Sequence[float], dsc: Sequence[float], path: str | Path) -> None:
    """DSC of each case at its true lesion volume.

    Args:
        volumes_ml: above 0.
        dsc: of the same cases.
        path: the file.
    """
    figure, axis = _figure(7, 3.2)
    axis.plot(volumes_ml, dsc, "o", color=_BLUE, markersize=4)
    axis.set(xscale="log", xlabel="simulated lesion volume of the case, mL", ylabel="DSC", ylim=(-0.02, 1.02))
    figure.savefig(path, dpi=100)


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
    first, rows = 0, {}
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


def shrink(path: str | Path, width: int) -> None:
    """Makes a PNG smaller in place: fewer pixels, a palette of 256 colours.

    Args:
        path: the file.
        width: in pixels, at most.
    """
    with Image.open(path) as image:
        height = round(image.height * min(width / image.width, 1))
        small = image.convert("RGB").resize((min(width, image.width), height), Image.Resampling.LANCZOS)
    # Pillow's default palette follows the many greys and turns the few lesion pixels grey.
    small.quantize(method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
