"""Pictures: a mask against the truth, on the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

__all__ = [
    "Agreement",
    "agreement",
    "save_lesion_overview",
    "save_lesion_planes",
    "save_lesion_slices",
    "save_montage",
    "save_volume_distribution",
    "shrink",
]


class Agreement(IntEnum):
    """How a voxel's prediction relates to the truth."""

    BACKGROUND = 0
    HIT = 1
    MISS = 2
    FALSE_ALARM = 3


# Told apart with any kind of colour vision (Okabe and Ito).
_COLOURS = {Agreement.HIT: "#009E73", Agreement.MISS: "#E69F00", Agreement.FALSE_ALARM: "#CC79A7"}

# Name, axis that the slices lie across, and what is on the left of the picture, in RAS orientation.
_PLANES = (("axial", 2, "L"), ("coronal", 1, "L"), ("sagittal", 0, "P"))


def agreement(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The :class:`Agreement` of each voxel, uint8, in the masks' shape."""
    mask, truth = mask > 0, truth > 0
    return np.select(
        [mask & truth, truth, mask], [Agreement.HIT, Agreement.MISS, Agreement.FALSE_ALARM], Agreement.BACKGROUND
    ).astype(np.uint8)


def _row(axes: np.ndarray, image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
    """Image, truth, mask and their agreement in the axial slice with most lesion, true or found."""
    z = int(((truth > 0) | (mask > 0)).sum(axis=(0, 1)).argmax())
    grey, white = image[:, :, z], float(np.percentile(image[image > 0], 99.5))
    overlays = [None, truth[:, :, z] > 0, mask[:, :, z] > 0, agreement(mask, truth)[:, :, z]]
    one_colour, all_colours = ListedColormap(["#56B4E9"]), ListedColormap(list(_COLOURS.values()))
    for axis, overlay in zip(axes, overlays, strict=True):
        axis.imshow(grey.T, cmap="gray", vmin=0, vmax=white, origin="lower")
        if overlay is not None:
            shown = np.ma.masked_equal(overlay.T.astype(int), 0)
            colours, top = (one_colour, 1) if overlay.dtype == bool else (all_colours, 3)
            axis.imshow(shown, cmap=colours, vmin=1, vmax=top, alpha=0.7, origin="lower", interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_xlabel(f"axial slice {z}", fontsize=8)


def save_montage(cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: str | Path) -> None:
    """A PNG with a row per case: image, truth, mask, and hits, misses and false alarms in colours.

    Args:
        cases: by title, the image, the true mask and the predicted mask, each ``(H, W, D)`` in RAS orientation.
        path: the file.
    """
    figure = Figure(figsize=(10, 2.7 * len(cases) + 0.5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(cases), 4, squeeze=False)
    for axis, title in zip(grid[0], ("image", "truth", "mask", "agreement"), strict=True):
        axis.set_title(title, fontsize=10)
    for axes, (title, (image, truth, mask)) in zip(grid, cases.items(), strict=True):
        _row(axes, image, truth, mask)
        axes[0].set_ylabel(title, fontsize=9)
    handles = [Patch(color=colour, label=kind.name.lower().replace("_", " ")) for kind, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def save_lesion_overview(cases: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path) -> None:
    """A PNG with each case's slice with most lesion, without and with the lesion's outline.

    Args:
        cases: by title, the image and its lesion mask, each ``(H, W, D)`` in RAS orientation.
        path: the file.
    """
    columns = 3
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(5 * columns, 2.9 * rows), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    for pair, (title, (image, label)) in zip(grid.reshape(-1, 2), cases.items(), strict=False):
        z = int((label > 0).sum(axis=(0, 1)).argmax())
        for axis in pair:
            axis.imshow(
                image[:, :, z].T, cmap="gray", vmin=0, vmax=np.percentile(image[image > 0], 99.5), origin="lower"
            )
        if (label[:, :, z] > 0).any():
            pair[1].contour(label[:, :, z].T > 0, levels=[0.5], colors=_COLOURS[Agreement.MISS], linewidths=1)
        pair[0].set_title(title, fontsize=9, loc="left")
    figure.savefig(path, dpi=110)


def save_lesion_slices(
    image: np.ndarray,
    mask: np.ndarray,
    path: str | Path,
    slices: int = 12,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> None:
    """Write a PNG of axial slices, evenly through the head, with the mask's outline.

    Left on the picture is left in the head, as the voxels are in RAS orientation and shown from above.

    Args:
        image: ``(H, W, D)`` in RAS orientation, 0 outside the head.
        mask: of the same shape.
        path: the file.
        slices: how many.
        spacing_mm: voxel sizes, of which the picture keeps the proportions.
    """
    occupied = np.flatnonzero((image > 0).any(axis=(0, 1)))
    chosen = np.linspace(occupied[0], occupied[-1], slices + 2).round().astype(int)[1:-1]
    white = float(np.percentile(image[image > 0], 99.5))
    columns = min(slices, 6)
    rows = -(-slices // columns)
    # With less padding the titles are cut.
    layout = ConstrainedLayoutEngine(h_pad=0.12)
    figure = Figure(figsize=(2.2 * columns, 2.7 * rows), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    # Ticks are measured for the layout even where they are not drawn, which takes half of the time.
    for axis in (grid := figure.subplots(rows, columns, squeeze=False, subplot_kw={"xticks": [], "yticks": []})).flat:
        axis.set_axis_off()
    aspect = spacing_mm[1] / spacing_mm[0]
    for axis, z in zip(grid.flat, chosen, strict=False):
        axis.imshow(image[:, :, z].T, cmap="gray", vmin=0, vmax=white, origin="lower", aspect=aspect)
        if (mask[:, :, z] > 0).any():
            axis.contour(mask[:, :, z].T > 0, levels=[0.5], colors=_COLOURS[Agreement.MISS], linewidths=1)
        axis.set_title(f"axial slice {z}", fontsize=8)
        # Many readers expect the left of the head on the right.
        axis.text(0.02, 0.5, "L", transform=axis.transAxes, color="white", fontsize=8)
    figure.savefig(path, dpi=90)


def _largest_lesion(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of the largest component of a mask that is not empty; neighbours touch by a corner too."""
    components, _ = ndimage.label(mask > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    largest: np.ndarray = components == 1 + sizes[1:].argmax()
    return largest


def _fullest_slices(voxels: np.ndarray) -> list[int]:
    """Return, for each axis, the number of the slice across it that has most of the voxels."""
    return [int(voxels.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)]


def save_lesion_planes(
    image: np.ndarray, mask: np.ndarray, path: str | Path, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> None:
    """Write a PNG of an axial, a coronal and a sagittal slice through the largest lesion, with the mask's outline.

    Of each plane it is the slice with most of that lesion; without a lesion the one with most of the head.

    Args:
        image: ``(H, W, D)`` in RAS orientation, 0 outside the head.
        mask: of the same shape.
        path: the file.
        spacing_mm: voxel sizes, of which the picture keeps the proportions.
    """
    head = tuple(slice(edges.start, edges.stop) for edges in ndimage.find_objects((image > 0).astype(np.uint8))[0])
    centre = _fullest_slices(_largest_lesion(mask) if (mask > 0).any() else image > 0)
    white = float(np.percentile(image[image > 0], 99.5))
    extents_mm = [(edges.stop - edges.start) * spacing for edges, spacing in zip(head, spacing_mm, strict=True)]
    widths = [extents_mm[0], extents_mm[0], extents_mm[1]]
    figure = Figure(figsize=(12, 12 / 0.92 * max(extents_mm[1:]) / sum(widths)), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, width_ratios=widths, subplot_kw={"xticks": [], "yticks": []})
    figure.subplots_adjust(left=0, bottom=0, right=1, top=0.92, wspace=0.01)
    for axis, (plane, normal, left) in zip(axes, _PLANES, strict=True):
        axis.set_axis_off()
        across, up = (spacing for other, spacing in enumerate(spacing_mm) if other != normal)
        within = tuple(centre[normal] if other == normal else head[other] for other in range(3))
        grey, outlined = image[within].T, mask[within].T > 0
        axis.imshow(grey, cmap="gray", vmin=0, vmax=white, origin="lower", aspect=up / across)
        if outlined.any():
            axis.contour(outlined, levels=[0.5], colors=_COLOURS[Agreement.MISS], linewidths=1.5)
        axis.set_title(f"{plane} slice {centre[normal]}", fontsize=16, color="white")
        axis.text(0.02, 0.5, left, transform=axis.transAxes, color="white", fontsize=16)
    figure.savefig(path, dpi=100)


def save_volume_distribution(volumes_ml: Sequence[float], quantiles: Mapping[float, float], path: str | Path) -> None:
    """A PNG of the cumulative distribution of lesion volumes beside a cohort's quantiles.

    Args:
        volumes_ml: one per case.
        quantiles: the cohort's volume in mL at each share of its cases, ATLAS R2's for instance.
        path: the file.
    """
    figure = Figure(figsize=(6, 4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.ecdf(volumes_ml, label=f"simulated, {len(volumes_ml)} cases", color="#0072B2")
    axis.plot(list(quantiles.values()), list(quantiles), "o", label="ATLAS R2, quantiles", color="#D55E00")
    axis.set(xscale="log", xlabel="lesion volume, mL", ylabel="share of cases with at most this volume")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


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
