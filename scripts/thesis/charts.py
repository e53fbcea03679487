"""Charts of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["draw_dsc_boxes", "draw_dsc_by_volume", "draw_recall_pairs"]

# Distinct with any kind of colour vision (Okabe and Ito).
_BLUE, _RED = "#0072B2", "#D55E00"


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty chart; the size is in inches."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    return figure, figure.subplots()


def draw_dsc_boxes(dsc: Mapping[str, Sequence[float]], case: str = "test case") -> Figure:
    """Return a box plot per network: quartiles, whiskers to 1.5 interquartile ranges, the mean as a dot.

    Args:
        dsc: of the cases, by network.
        case: what a case is called.
    """
    figure, axis = _chart(7, 0.45 * len(dsc) + 1)
    axis.boxplot(
        list(dsc.values()),
        orientation="horizontal",
        tick_labels=list(dsc),
        showmeans=True,
        meanprops={"marker": "o", "markerfacecolor": _RED, "markeredgecolor": _RED, "markersize": 4},
        medianprops={"color": _BLUE},
    )
    axis.invert_yaxis()
    axis.set(xlabel=f"DSC of a {case}", xlim=(-0.02, 1.02))
    return figure


def draw_recall_pairs(recalls: Mapping[str, Sequence[float]], case: str = "test case") -> Figure:
    """Return the recall of each case by two networks, sorted by the second; blue where the first is higher, else red.

    Args:
        recalls: of the same cases, by network.
        case: what a case is called.
    """
    titles = list(recalls)
    first, second = np.array(list(recalls.values()))[:, np.argsort(recalls[titles[1]], kind="stable")]
    x = 1 + np.arange(len(first))
    figure, axis = _chart(7, 3.2)
    for where, colour in ((first >= second, _BLUE), (first <= second, _RED)):
        axis.fill_between(x, first, second, where=where, interpolate=True, color=colour, alpha=0.35, linewidth=0)
    axis.plot(x, first, color=_BLUE, linewidth=1, label=titles[0])
    axis.plot(x, second, color=_RED, linewidth=1.5, label=titles[1])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel=f"{case}, by recall of {titles[1]}", ylabel="recall", ylim=(-0.02, 1.02))
    axis.legend(frameon=False)
    return figure


def draw_dsc_by_volume(volumes_ml: Sequence[float], dsc: Sequence[float]) -> Figure:
    """Return the DSC of each case at its true lesion volume.

    Args:
        volumes_ml: above 0.
        dsc: of the same cases.
    """
    figure, axis = _chart(7, 3.2)
    axis.plot(volumes_ml, dsc, "o", color=_BLUE, markersize=4)
    axis.set(xscale="log", xlabel="simulated lesion volume of the case, mL", ylabel="DSC", ylim=(-0.02, 1.02))
    return figure
