"""Charts of results, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["save_dsc_boxes", "save_dsc_by_volume", "save_recall_pairs"]

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
