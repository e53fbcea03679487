"""The thesis's figures that show results, for the runs of scripts.thesis.experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bundle.data import load_datalist
from bundle.errors import InputError
from bundle.files import stem
from bundle.metrics import summarize
from bundle.networks import SliceStackUNet
from scripts.thesis.charts import draw_dsc_boxes, draw_recall_pairs
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
from scripts.thesis.tables import run_titles

__all__ = ["FIGURES", "ThesisFigure", "read_voxels", "save_figure"]


class ThesisFigure(NamedTuple):
    """A figure.

    Attributes:
        runs: the runs that it shows.
        draw: makes it of the experiments, the runs, and the test case that the user names, if any.
    """

    runs: Sequence[str]
    draw: Callable[[Experiments, Sequence[str], str | None], Figure]


def save_figure(name: str, work: Experiments, case: str | None) -> None:
    """Write <name>.png, if all runs that it shows are tested."""
    runs, draw = FIGURES[name]
    if left := [run for run in runs if not work.cases(run)]:
        print(f"{name} waits for {', '.join(left)}.")
        return
    draw(work, runs, case).savefig(work.output / f"{name}.png")
    print(work.output / f"{name}.png")


def _find(work: Experiments, case: str | None) -> tuple[Path, dict[str, Any]]:
    """Return a test case and its datalist; the one with most lesion voxels if the user names none."""
    items = {
        item.get("case") or stem(item["label"]): (file, item)
        for file in work.datalists
        for item in load_datalist(file, "test")
    }
    if case is None:
        return max(items.values(), key=lambda found: np.count_nonzero(read_voxels(found[1]["label"])))
    if case not in items:
        raise InputError(f"{case} is not a test case: choose from {', '.join(sorted(items))}.")
    return items[case]


def read_voxels(file: str | Path) -> np.ndarray:
    """Return the voxels of an image in RAS orientation."""
    return np.asarray(nib.as_closest_canonical(nib.load(file)).dataobj)


def _mask(folder: Path, item: Mapping[str, Any]) -> np.ndarray:
    """Return a run's mask of a test case; where images are in several folders, so are the masks."""
    masks, image = folder / "test" / "masks", Path(item["image"])

    def belongs(mask: Path) -> bool:
        below = mask.parent.relative_to(masks).parts
        return not below or image.parent.parts[-len(below) :] == below

    return read_voxels(next(filter(belongs, masks.rglob(f"{stem(image)}_lesion.nii.gz"))))


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure; the size is in inches."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels without ticks."""
    figure = _figure(1.8 * columns, 1.8 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def _show(axis: Axes, picture: np.ndarray, title: str = "", **more: Any) -> None:
    axis.imshow(picture.T, origin="lower", **more)
    axis.set_title(title, fontsize=8)


def _show_slice(
    panels: Sequence[Axes] | np.ndarray, image: np.ndarray, truth: np.ndarray, title: str, **more: Any
) -> None:
    """Show a slice and its truth in the first two of the panels, and hide the others."""
    _show(panels[0], image, title, cmap="gray", **more)
    _show(panels[1], truth, "truth", cmap="gray", interpolation="nearest")
    for axis in panels[2:]:
        axis.set_visible(False)


# Results


def _metric(work: Experiments, runs: Sequence[str], metric: str) -> dict[str, list[float]]:
    """Return a metric of all test cases by the title of each run."""
    titles = run_titles()
    return {titles[run]: [case[metric] for case in work.cases(run).values()] for run in runs}


def _draw_boxes(work: Experiments, runs: Sequence[str], _: str | None) -> Figure:
    return draw_dsc_boxes(_metric(work, runs, "dsc"))


def _draw_recalls(work: Experiments, runs: Sequence[str], _: str | None) -> Figure:
    return draw_recall_pairs(_metric(work, runs, "recall"))


_MISSED, _FALSE = "#F0E442", "#CC79A7"


def _draw_differences(work: Experiments, runs: Sequence[str], case: str | None) -> Figure:
    """Draw where each network misses lesion and where it falsely finds it, in the slice with most lesion."""
    datalist, item = _find(work, case)
    image, truth = read_voxels(item["image"]), read_voxels(item["label"]) > 0
    z, titles, count = int(truth.sum(axis=(0, 1)).argmax()), run_titles(), 2 + len(runs)
    grey = {"vmin": 0, "vmax": float(np.percentile(image[image > 0], 99.5))}
    figure, axes = _panels(2, (count + 1) // 2)
    unused = axes.flat[count:]
    _show_slice([*axes.flat[:2], *unused], image[..., z], truth[..., z], f"{stem(item['image'])}, slice {z}", **grey)
    for axis, name in zip(axes.flat[2:count], runs, strict=True):
        mask = _mask(work.folder(name, datalist), item) > 0
        _show(axis, image[..., z], titles[name], cmap="gray", **grey)
        for wrong, colour in ((truth & ~mask, _MISSED), (mask & ~truth, _FALSE)):
            painted = np.ma.masked_equal(wrong[..., z].T.astype(int), 0)
            axis.imshow(painted, cmap=ListedColormap([colour]), origin="lower", interpolation="nearest")
    patches = [Patch(color=_MISSED, label="missed"), Patch(color=_FALSE, label="falsely found")]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


_BY_ALPHA = {
    "0.25": "tsrl_net_alpha_25_beta_1",
    "0.5": "tsrl_net_alpha_50_beta_1",
    "0.75": "tsrl_net_alpha_75_beta_1",
}
_BY_BETA = {
    "1": "tsrl_net_alpha_75_beta_1",
    "2": "tsrl_net_gamma_2_beta_2",
    "4": "tsrl_net",
    "8": "tsrl_net_gamma_2_beta_8",
}


def _draw_focus(work: Experiments, _: Sequence[str], __: str | None) -> Figure:
    """Draw DSC, recall and precision by alpha at beta 1, and by beta at alpha 0.75."""
    figure = _figure(8, 3)
    sides = figure.subplots(1, 2, sharey=True)
    for axis, label, runs in zip(
        sides, ("alpha, at beta 1", "beta, at alpha 0.75"), (_BY_ALPHA, _BY_BETA), strict=True
    ):
        summaries = [summarize(list(work.cases(run).values())) for run in runs.values()]
        for metric, style in (("dsc", "o-"), ("recall", "s--"), ("precision", "^:")):
            axis.plot(list(runs), [summary[metric] for summary in summaries], style, label=metric)
        axis.set(xlabel=label)
    sides[0].legend(frameon=False, fontsize=8)
    return figure


# What is inside


_SCALES = ("1/1", "1/2", "1/4", "1/8", "1/16")


def _inside(work: Experiments, name: str, case: str | None) -> tuple[SliceStackUNet, Slice]:
    """Return a trained network, and the slice of the case as it sees it."""
    datalist, item = _find(work, case)
    parser = work.parser(name)
    return load_network(parser, work.folder(name, datalist) / "train" / "model.pt"), read_slice(parser, item)


def _draw_attention(work: Experiments, runs: Sequence[str], case: str | None) -> Figure:
    """Draw the features before, the patch scores and the features after, of each encoder level."""
    network, seen = _inside(work, runs[0], case)
    figure, axes = _panels(3, 6)
    _show_slice(axes[:, 0], seen.image, seen.truth, f"slice {seen.number}")
    levels = zip(axes[:, 1:].T, _SCALES, patch_attention(network, seen.stack), strict=True)
    for column, scale, (before, scores, after) in levels:
        _show(column[0], before, scale, cmap="viridis")
        _show(column[1], scores, cmap="magma", vmin=0, vmax=1)
        _show(column[2], after, cmap="viridis")
    for axis, label in zip(axes[:, 1], ("features before", "patch scores, 0 to 1", "features after"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    return figure


def _draw_weights(work: Experiments, runs: Sequence[str], case: str | None) -> Figure:
    """Draw the weights of CFF's 2D channels at its two scales, without and with CPA, and their variance."""
    titles, strips = run_titles(), []
    for name in runs:
        network, seen = _inside(work, name, case)
        for scale, weights in zip(_SCALES[1:3], channel_weights(network, seen.stack), strict=True):
            strips.append((f"{titles[name]}, scale {scale}", weights))
    figure = _figure(8, 3.2)
    axes = figure.subplots(len(strips), 1)
    for axis, (title, weights) in zip(axes, sorted(strips, key=lambda strip: len(strip[1])), strict=True):
        shown = axis.imshow(weights[None], aspect="auto", cmap="magma", vmin=0, vmax=1)
        axis.set_title(f"{title}: {len(weights)} channels, variance {weights.var():.2g}", fontsize=8)
        axis.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, label="weight")
    return figure


def _draw_residuals(work: Experiments, runs: Sequence[str], case: str | None) -> Figure:
    """Draw what CRL does to the features of each skip of TSRL-Net."""
    network, seen = _inside(work, runs[0], case)
    levels = residuals(network, seen.stack)[::-1]
    figure, axes = _panels(len(levels), len(levels[0]) + 1)
    _show_slice(axes[:, 0], seen.image, seen.truth, f"slice {seen.number}")
    for row, maps, scale in zip(axes[:, 1:], levels, _SCALES, strict=False):
        for axis, (title, features) in zip(row, maps.items(), strict=True):
            _show(axis, features, f"{title}, {scale}", cmap="viridis")
    return figure


def _draw_sides(work: Experiments, runs: Sequence[str], case: str | None) -> Figure:
    """Draw the side outputs and the final one, with CRL and with reverse attention alone."""
    titles = run_titles()
    figure, axes = _panels(len(runs), 7)
    for row, name in zip(axes, runs, strict=True):
        network, seen = _inside(work, name, case)
        _show_slice(row[:2], seen.image, seen.truth, f"slice {seen.number}")
        for number, (axis, output) in enumerate(zip(row[2:], side_outputs(network, seen.stack), strict=True), start=1):
            _show(axis, output, f"output {number}", cmap="magma", vmin=0, vmax=1)
        row[0].set_ylabel(titles[name], fontsize=8)
    return figure


_PREVIOUS = ("u_net", "seg_net", "psp_net", "deeplab_v3", "unet_plus_plus", "attention_u_net")
_CHAPTER_4 = ("unet_plus_plus", "acs_net", "attention_u_net", "d_unet", "agmr_net", "tsrl_net")

FIGURES = {
    "figure_3_6": ThesisFigure((*_PREVIOUS, "d_unet", "agmr_net"), _draw_differences),
    "figure_3_8": ThesisFigure((*_PREVIOUS, "d_unet", "x_net", "agmr_net"), _draw_boxes),
    "figure_3_9": ThesisFigure(("agmr_net",), _draw_attention),
    "figure_3_10": ThesisFigure(("table_3_1_cff", "table_3_1_cpa_cff"), _draw_weights),
    "figure_4_2": ThesisFigure(("tsrl_net",), _draw_residuals),
    "figure_4_5": ThesisFigure(_CHAPTER_4, _draw_differences),
    "figure_4_6": ThesisFigure(("tsrl_net", "agmr_net"), _draw_recalls),
    "figure_4_7": ThesisFigure(_CHAPTER_4, _draw_boxes),
    "figure_4_8": ThesisFigure(tuple(dict.fromkeys([*_BY_ALPHA.values(), *_BY_BETA.values()])), _draw_focus),
    "figure_4_9": ThesisFigure(("table_4_1_crl", "table_4_7_reverse_attention"), _draw_sides),
}
"""By name. The networks of a figure that compares them are our choice: the thesis names them in its pictures alone."""
