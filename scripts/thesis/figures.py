"""The thesis's figures that show results, for the runs of scripts.thesis.experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bundle.data import load_datalist
from bundle.errors import InputError
from bundle.files import stem
from bundle.metrics import summarize
from bundle.networks import SliceStackUNet
from scripts.thesis.charts import save_dsc_boxes, save_recall_pairs
from scripts.thesis.experiment_runs import Experiments
from scripts.thesis.features import (
    Slice,
    channel_weights,
    load_network,
    patch_attention,
    read_slice,
    residuals,
    side_outputs,
)
from scripts.thesis.tables import Run, load_tables

__all__ = ["FIGURES", "Request", "ThesisFigure"]


class Request(NamedTuple):
    """What a figure is drawn of.

    Attributes:
        work: the experiments.
        runs: all of them.
        case: that the user names, or None.
        path: the file to write.
    """

    work: Experiments
    runs: Mapping[str, Run]
    case: str | None
    path: Path


class ThesisFigure(NamedTuple):
    """A figure.

    Attributes:
        runs: that it shows.
        save: writes it.
    """

    runs: tuple[str, ...]
    save: Callable[[Request], None]


def _titles() -> dict[str, str]:
    """What the tables call each run: those of whole networks first, in whose terms the others are."""
    tables = load_tables()
    rows = [row for name in ("table_4_2", "table_3_2", *tables) for row in tables[name].rows if row.run]
    return {row.run: row.title for row in reversed(rows) if row.run}


def _find(asked: Request) -> tuple[Path, dict[str, Any]]:
    """A test case and its datalist; the one with most lesion voxels where the user names none."""
    items = {
        item.get("case") or stem(item["label"]): (file, item)
        for file in asked.work.datalists
        for item in load_datalist(file, "test")
    }
    if asked.case is None:
        return max(items.values(), key=lambda found: np.count_nonzero(_voxels(found[1]["label"])))
    if asked.case not in items:
        raise InputError(f"{asked.case} is no test case: choose from {', '.join(sorted(items))}.")
    return items[asked.case]


def _voxels(file: str | Path) -> np.ndarray:
    """In RAS orientation."""
    return np.asarray(nib.as_closest_canonical(nib.load(file)).dataobj)


def _mask(folder: Path, item: Mapping[str, Any]) -> np.ndarray:
    """What a run found in a test case; where images lie in several folders, so do the masks."""
    masks, image = folder / "test" / "masks", Path(item["image"])

    def belongs(mask: Path) -> bool:
        below = mask.parent.relative_to(masks).parts
        return not below or image.parent.parts[-len(below) :] == below

    return _voxels(next(filter(belongs, masks.rglob(f"{stem(image)}_lesion.nii.gz"))))


def _grid(rows: int, columns: int, size: float = 1.8) -> tuple[Figure, np.ndarray]:
    """Panels without ticks; the size of one is in inches."""
    figure = Figure(figsize=(size * columns, size * rows + 0.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def _show(axis: Axes, picture: np.ndarray, title: str = "", **more: Any) -> None:
    axis.imshow(picture.T, origin="lower", **more)
    if title:
        axis.set_title(title, fontsize=8)


# Results


def _boxes(names: Sequence[str], asked: Request) -> None:
    titles = _titles()
    dsc = {titles[name]: [metrics["dsc"] for metrics in (asked.work.cases(name) or {}).values()] for name in names}
    save_dsc_boxes(dsc, asked.path)


def _recall(asked: Request) -> None:
    recalls = [[c["recall"] for c in (asked.work.cases(name) or {}).values()] for name in ("tsrl_net", "agmr_net")]
    save_recall_pairs(recalls[0], recalls[1], ("TSRL-Net", "AGMR-Net"), asked.path)


_MISSED, _FALSE = "#F0E442", "#CC79A7"


def _differences(names: Sequence[str], asked: Request) -> None:
    """Of each network, where it misses lesion and where it sees one that is none, in the slice with most lesion."""
    datalist, item = _find(asked)
    image, truth = _voxels(item["image"]), _voxels(item["label"]) > 0
    z, titles = int(truth.sum(axis=(0, 1)).argmax()), _titles()
    columns = (len(names) + 3) // 2
    figure, axes = _grid(2, columns)
    grey = {"cmap": "gray", "vmin": 0, "vmax": float(np.percentile(image[image > 0], 99.5))}
    for axis in axes.flat[len(names) + 2 :]:
        axis.set_visible(False)
    _show(axes.flat[0], image[..., z], f"{stem(item['image'])}, slice {z}", **grey)
    _show(axes.flat[1], truth[..., z], "truth", cmap="gray", interpolation="nearest")
    for axis, name in zip(axes.flat[2:], names, strict=False):
        mask = _mask(asked.work.folder(name, datalist), item) > 0
        _show(axis, image[..., z], titles[name], **grey)
        for wrong, colour in ((truth & ~mask, _MISSED), (mask & ~truth, _FALSE)):
            _paint(axis, wrong[..., z], colour)
    patches = [Patch(color=_MISSED, label="missed"), Patch(color=_FALSE, label="falsely found")]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(asked.path, dpi=120)


def _paint(axis: Axes, where: np.ndarray, colour: str) -> None:
    shown = np.ma.masked_equal(where.T.astype(int), 0)
    axis.imshow(shown, cmap=ListedColormap([colour]), origin="lower", interpolation="nearest")


_BETAS: dict[float, str] = {
    1: "tsrl_net_alpha_75_beta_1",
    2: "tsrl_net_gamma_2_beta_2",
    4: "tsrl_net",
    8: "tsrl_net_gamma_2_beta_8",
}
_ALPHAS: dict[float, str] = {
    0.25: "tsrl_net_alpha_25_beta_1",
    0.5: "tsrl_net_alpha_50_beta_1",
    0.75: "tsrl_net_alpha_75_beta_1",
}


def _focus(asked: Request) -> None:
    """DSC, recall and precision by alpha at beta 1, and by beta at alpha 0.75."""
    figure = Figure(figsize=(8, 3), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    sides = figure.subplots(1, 2, sharey=True)
    settings: dict[str, Mapping[float, str]] = {"alpha, at beta 1": _ALPHAS, "beta, at alpha 0.75": _BETAS}
    for axis, (letter, names) in zip(sides, settings.items(), strict=True):
        summaries = [summarize(list((asked.work.cases(name) or {}).values())) for name in names.values()]
        for metric, style in (("dsc", "o-"), ("recall", "s--"), ("precision", "^:")):
            axis.plot(range(len(names)), [summary[metric] for summary in summaries], style, label=metric)
        axis.set(xticks=range(len(names)), xticklabels=list(names), xlabel=letter)
    sides[0].legend(frameon=False, fontsize=8)
    figure.savefig(asked.path, dpi=120)


# What is inside


def _inside(asked: Request, name: str) -> tuple[SliceStackUNet, Slice]:
    """A trained network, and the slice of the case as it sees it."""
    datalist, item = _find(asked)
    parser = asked.work.parser(asked.runs[name])
    return load_network(parser, asked.work.folder(name, datalist) / "train" / "model.pt"), read_slice(parser, item)


_SCALES = ("1/1", "1/2", "1/4", "1/8", "1/16")


def _attention(asked: Request) -> None:
    """Of each encoder level of AGMR-Net: features before, patch scores, features after."""
    network, seen = _inside(asked, "agmr_net")
    figure, axes = _grid(3, 6)
    _show(axes[0, 0], seen.image, f"slice {seen.number}", cmap="gray")
    _show(axes[1, 0], seen.truth, "truth", cmap="gray", interpolation="nearest")
    axes[2, 0].set_visible(False)
    for column, (scores, before, after) in zip(axes[:, 1:].T, patch_attention(network, seen.stack), strict=True):
        _show(column[0], before, cmap="viridis")
        _show(column[1], scores, cmap="magma", vmin=0, vmax=1)
        _show(column[2], after, cmap="viridis")
    for axis, scale in zip(axes[0, 1:], _SCALES, strict=True):
        axis.set_title(scale, fontsize=8)
    for axis, label in zip(axes[:, 1], ("features before", "patch scores, 0 to 1", "features after"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    figure.savefig(asked.path, dpi=120)


_WITHOUT_AND_WITH_CPA = ("table_3_1_cff", "table_3_1_cpa_cff")


def _weights(asked: Request) -> None:
    """The weights of CFF's 2D channels at its two scales, without and with CPA, and their variance."""
    figure = Figure(figsize=(8, 3.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    titles, strips = _titles(), []
    for name in _WITHOUT_AND_WITH_CPA:
        network, seen = _inside(asked, name)
        strips += [
            (f"{titles[name]}, scale {scale}", weights)
            for scale, weights in zip(_SCALES[1:3], channel_weights(network, seen.stack), strict=True)
        ]
    axes = figure.subplots(len(strips), 1)
    for axis, (title, weights) in zip(axes, sorted(strips, key=lambda strip: len(strip[1])), strict=True):
        shown = axis.imshow(weights[None], aspect="auto", cmap="magma", vmin=0, vmax=1)
        axis.set_title(f"{title}: {len(weights)} channels, variance {weights.var():.2g}", fontsize=8)
        axis.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, label="weight")
    figure.savefig(asked.path, dpi=120)


def _residuals(asked: Request) -> None:
    """What CRL does to the features of each skip of TSRL-Net."""
    network, seen = _inside(asked, "tsrl_net")
    levels = residuals(network, seen.stack)[::-1]
    figure, axes = _grid(len(levels), len(levels[0]) + 1)
    _show(axes[0, 0], seen.image, f"slice {seen.number}", cmap="gray")
    _show(axes[1, 0], seen.truth, "truth", cmap="gray", interpolation="nearest")
    for axis in axes[2:, 0]:
        axis.set_visible(False)
    for row, maps, scale in zip(axes[:, 1:], levels, _SCALES, strict=False):
        for axis, (title, features) in zip(row, maps.items(), strict=True):
            _show(axis, features, f"{title}, {scale}", cmap="viridis")
    figure.savefig(asked.path, dpi=120)


_SIDES = ("table_4_1_crl", "table_4_7_reverse_attention")


def _sides(asked: Request) -> None:
    """The side outputs and the final one, with CRL and with reverse attention alone."""
    titles = _titles()
    figure, axes = _grid(len(_SIDES), 7)
    for row, name in zip(axes, _SIDES, strict=True):
        network, seen = _inside(asked, name)
        _show(row[0], seen.image, f"slice {seen.number}", cmap="gray")
        _show(row[1], seen.truth, "truth", cmap="gray", interpolation="nearest")
        for number, (axis, output) in enumerate(zip(row[2:], side_outputs(network, seen.stack), strict=True), start=1):
            _show(axis, output, f"output {number}", cmap="magma", vmin=0, vmax=1)
        row[0].set_ylabel(titles[name], fontsize=8)
    figure.savefig(asked.path, dpi=120)


_PREVIOUS = ("u_net", "seg_net", "psp_net", "deeplab_v3", "unet_plus_plus", "attention_u_net")
_MASKS_3, _BOXES_3 = (*_PREVIOUS, "d_unet", "agmr_net"), (*_PREVIOUS, "d_unet", "x_net", "agmr_net")
_CHAPTER_4 = ("unet_plus_plus", "acs_net", "attention_u_net", "d_unet", "agmr_net", "tsrl_net")

FIGURES = {
    "figure_3_6": ThesisFigure(_MASKS_3, partial(_differences, _MASKS_3)),
    "figure_3_8": ThesisFigure(_BOXES_3, partial(_boxes, _BOXES_3)),
    "figure_3_9": ThesisFigure(("agmr_net",), _attention),
    "figure_3_10": ThesisFigure(_WITHOUT_AND_WITH_CPA, _weights),
    "figure_4_2": ThesisFigure(("tsrl_net",), _residuals),
    "figure_4_5": ThesisFigure(_CHAPTER_4, partial(_differences, _CHAPTER_4)),
    "figure_4_6": ThesisFigure(("agmr_net", "tsrl_net"), _recall),
    "figure_4_7": ThesisFigure(_CHAPTER_4, partial(_boxes, _CHAPTER_4)),
    "figure_4_8": ThesisFigure(tuple(dict.fromkeys([*_ALPHAS.values(), *_BETAS.values()])), _focus),
    "figure_4_9": ThesisFigure(_SIDES, _sides),
}
"""By name. Which networks stand in a figure that compares them, the thesis shows in its pictures alone: we chose."""
