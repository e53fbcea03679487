"""Pictures of several cases, of many slices and of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from PIL import Image

from bundle.volumes.planes import OUTLINE_COLOUR, fullest_slice, white_level

__all__ = [
    "Agreement",
    "agreement",
    "save_lesion_overview",
    "save_lesion_slices",
    "save_montage",
    "save_volume_distribution",
    "shrink",
]


class Agreement(IntEnum):
    """The relation of a voxel's prediction to the truth."""

    BACKGROUND = 0
    HIT = 1
    MISS = 2
    FALSE_ALARM = 3


# Distinguishable with any kind of colour vision (Okabe and Ito).
_COLOURS = {Agreement.HIT: "#009E73", Agreement.MISS: OUTLINE_COLOUR, Agreement.FALSE_ALARM: "#CC79A7"}


def agreement(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the :class:`Agreement` of each voxel, uint8, in the shape of the masks."""
    mask, truth = mask > 0, truth > 0
    return np.select(
        [mask & truth, truth, mask], [Agreement.HIT, Agreement.MISS, Agreement.FALSE_ALARM], Agreement.BACKGROUND
    ).astype(np.uint8)


def _show(axes: Axes, grey: np.ndarray, white: float, aspect: float = 1.0) -> None:
    """Show a slice, the first axis to the right and the second up."""
    axes.imshow(grey.T, cmap="gray", vmin=0, vmax=white, origin="lower", aspect=aspect)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    if mask.any():
        axes.contour(mask.T > 0, levels=[0.5], colors=OUTLINE_COLOUR, linewidths=1.0)


def _row(row: np.ndarray, image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
    """Show image, truth, mask and their agreement in the axial slice with most lesion, true or found."""
    z = fullest_slice((truth > 0) | (mask > 0), 2)
    white = white_level(image)
    overlays = [None, truth[:, :, z] > 0, mask[:, :, z] > 0, agreement(mask, truth)[:, :, z]]
    one_colour, all_colours = ListedColormap(["#56B4E9"]), ListedColormap(list(_COLOURS.values()))
    for axes, overlay in zip(row, overlays, strict=True):
        _show(axes, image[:, :, z], white)
        if overlay is not None:
            shown = np.ma.masked_equal(overlay.T.astype(int), 0)
            colours, top = (one_colour, 1) if overlay.dtype == bool else (all_colours, 3)
            axes.imshow(shown, cmap=colours, vmin=1, vmax=top, alpha=0.7, origin="lower", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
    row[0].set_xlabel(f"axial slice {z}", fontsize=8)


def save_montage(cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: str | Path) -> None:
    """Write a PNG with a row per case: image, truth, mask, and hits, misses and false alarms in colours.

    Args:
        cases: by title, the image, the true mask and the predicted mask, each ``(H, W, D)`` in RAS orientation.
        path: the file.
    """
    figure = Figure(figsize=(10, 2.7 * len(cases) + 0.5), facecolor="white", layout="constrained")
    grid = figure.subplots(len(cases), 4, squeeze=False)
    for axes, title in zip(grid[0], ("image", "truth", "mask", "agreement"), strict=True):
        axes.set_title(title, fontsize=10)
    for row, (title, case) in zip(grid, cases.items(), strict=True):
        _row(row, *case)
        row[0].set_ylabel(title, fontsize=9)
    handles = [Patch(color=colour, label=kind.name.lower().replace("_", " ")) for kind, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def save_lesion_overview(cases: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path) -> None:
    """Write a PNG with each case's slice with most lesion, without and with the outline of the lesion.

    Args:
        cases: by title, the image and its lesion mask, each ``(H, W, D)`` in RAS orientation.
        path: the file.
    """
    columns = 3
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(5 * columns, 2.9 * rows), facecolor="white", layout="constrained")
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for pair, (title, (image, label)) in zip(grid.reshape(-1, 2), cases.items(), strict=False):
        z, white = fullest_slice(label > 0, 2), white_level(image)
        for axes in pair:
            _show(axes, image[:, :, z], white)
        _outline(pair[1], label[:, :, z])
        pair[0].set_title(title, fontsize=9, loc="left")
    figure.savefig(path, dpi=110)


def save_lesion_slices(
    image: np.ndarray,
    mask: np.ndarray,
    path: str | Path,
    slices: int = 12,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> None:
    """Write a PNG of axial slices, evenly through the head, with the outline of the mask.

    Left on the picture is left in the head, as the voxels are in RAS orientation and shown from above.

    Args:
        image: ``(H, W, D)`` in RAS orientation, 0 outside the head.
        mask: of the same shape.
        path: the file.
        slices: how many.
        spacing_mm: voxel sizes; the picture keeps their proportions.
    """
    occupied = np.flatnonzero((image > 0).any(axis=(0, 1)))
    chosen = np.linspace(occupied[0], occupied[-1], slices + 2).round().astype(int)[1:-1]
    white = white_level(image)
    columns = min(slices, 6)
    rows = -(-slices // columns)
    layout = ConstrainedLayoutEngine(h_pad=0.12)  # with less padding the titles are cut
    figure = Figure(figsize=(2.2 * columns, 2.7 * rows), facecolor="white", layout=layout)
    # Without ticks, which are measured for the layout even if they are not drawn, it takes half of the time.
    grid = figure.subplots(rows, columns, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, z in zip(grid.flat, chosen, strict=False):
        _show(axes, image[:, :, z], white, aspect=spacing_mm[1] / spacing_mm[0])
        _outline(axes, mask[:, :, z])
        axes.set_title(f"axial slice {z}", fontsize=8)
        # Many readers expect the left of the head on the right.
        axes.text(0.02, 0.5, "L", transform=axes.transAxes, color="white", fontsize=8)
    figure.savefig(path, dpi=90)


def save_volume_distribution(volumes_ml: Sequence[float], quantiles: Mapping[float, float], path: str | Path) -> None:
    """Write a PNG of the cumulative distribution of lesion volumes and of a cohort's quantiles.

    Args:
        volumes_ml: one per case.
        quantiles: the cohort's volume in mL at each share of its cases, such as ATLAS R2's.
        path: the file.
    """
    figure = Figure(figsize=(6, 4), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.ecdf(volumes_ml, label=f"simulated, {len(volumes_ml)} cases", color="#0072B2")
    axes.plot(list(quantiles.values()), list(quantiles), "o", label="ATLAS R2, quantiles", color="#D55E00")
    axes.set(xscale="log", xlabel="lesion volume, mL", ylabel="share of cases with at most this volume")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def shrink(path: str | Path, width: int) -> None:
    """Reduce a PNG in place to fewer pixels and a palette of 256 colours.

    Args:
        path: the file.
        width: in pixels, at most.
    """
    with Image.open(path) as image:
        height = round(image.height * min(width / image.width, 1))
        small = image.convert("RGB").resize((min(width, image.width), height), Image.Resampling.LANCZOS)
    # Pillow's default palette follows the many greys and turns the few lesion pixels grey.
    small.quantize(method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
