"""How good masks are likely to be, learnt from validation cases: ``python -m scripts.quality RESULTS CASES``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bundle.errors import InputError
from bundle.files import bundle_root
from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.quality import QualityModel

__all__ = ["quality"]

_GOOD, _BAD = 0.7, 0.4
_BINS = 5


class _Case(NamedTuple):
    """A mask that is not empty and its truth: see :func:`bundle.quality.fit_quality`."""

    mask: tuple[float, float, float]
    lesions: list[tuple[float, float, bool]]


def quality(
    results: str,
    cases: str,
    *,
    weights: str | None = None,
    fit: bool = True,
    least_dice: float = 0.5,
    figure: str | None = None,
) -> None:
    """Fit the prediction of masks' quality to cases with a truth, or measure it on others.

    The model goes into the weights' settings (model.json); scripts.segment then predicts the Dice of each mask, flags
    the masks below --least_dice, and gives each lesion the probability that it is one.

    Args:
        results: the OUTPUT of scripts.segment for the images of the cases, with these weights.
        cases: a folder with images/ and labels/, or a datalist in JSON with a section "training". To fit, validation
            cases; to measure, cases that nothing was chosen on.
        weights: whose masks the results are; the bundle's models/model.pt unless given.
        fit: write the model; --nofit only measures the one that is there.
        least_dice: masks with a lower predicted Dice are flagged.
        figure: a PNG with predicted against true Dice, and with the share of true lesions by their probability.
    """
    from bundle.quality import fit_quality
    from bundle.weights import read_settings, write_settings

    measured = list(_measured(Path(results), cases))
    masks, lesions = [case.mask for case in measured], [lesion for case in measured for lesion in case.lesions]
    if not masks:
        raise InputError(f"{results} has no mask with a lesion of {cases}: the results of its images are expected.")
    weights = weights or str(Path(bundle_root()) / "models" / "model.pt")
    settings = read_settings(weights)
    model = fit_quality(masks, lesions, least_dice) if fit else settings.quality
    if model is None:
        raise InputError(f"{weights} has no model of its masks' quality: fit one first, without --nofit.")
    if fit:
        write_settings(weights, replace(settings, quality=model))
    _report(model, masks, lesions, figure)


def _measured(results: Path, cases: str) -> Iterator[_Case]:
    """Yield the masks of a batch with their truths."""
    import nibabel as nib

    from bundle.data import load_datalist
    from bundle.files import read_json

    labels = {Path(case["image"]).resolve(): case["label"] for case in load_datalist(cases)}
    for file in sorted((results / "records").glob("**/*.json")):
        record = read_json(file)
        label = labels.get(Path(record["file"]).resolve())
        if label is None or record["status"] != "done" or not record["lesions"]:
            continue
        (name,) = (name for name in record["files"] if name.endswith("desc-lesion_mask.nii.gz"))
        mask, truth = (np.asarray(nib.load(path).dataobj) > 0 for path in (results / name, label))
        yield _compared(record, mask, truth)


def _compared(record: dict, mask: np.ndarray, truth: np.ndarray) -> _Case:
    from bundle.lesions import components

    dice = 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())
    labels, count = components(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    touched = np.bincount(labels[truth], minlength=count + 1)[1:] > 0
    # The records have the lesions from the largest to the smallest too.
    true = touched[np.argsort(-sizes, kind="stable")]
    lesions = [
        (each["mean_probability"], each["volume_ml"], bool(is_true))
        for each, is_true in zip(record["lesions"], true, strict=True)
    ]
    return _Case((record["expected_dice"], record["volume_ml"], dice), lesions)


def _report(model: QualityModel, masks: Sequence[tuple], lesions: Sequence[tuple], figure: str | None) -> None:
    """Print how well the model holds on cases, and draw it."""
    predicted = np.array([model.predicted_dice(expected, volume_ml) for expected, volume_ml, _ in masks])
    dice, flagged = np.array([dice for *_, dice in masks]), predicted < model.least_dice
    chances = np.array([model.lesion_probability(mean, volume_ml) for mean, volume_ml, _ in lesions])
    true = np.array([is_true for *_, is_true in lesions])
    print(f"{len(masks)} masks: predicted and true Dice differ by {np.abs(predicted - dice).mean():.3f} on average.")
    for kind, chosen in ((f"{_GOOD} or more", dice >= _GOOD), (f"below {_BAD}", dice < _BAD)):
        print(f"Of {chosen.sum()} masks with a Dice of {kind}, {flagged[chosen].sum()} are flagged.")
    for kind, chosen in (("true", true), ("false", ~true)):
        if chosen.any():
            print(f"{chosen.sum()} {kind} lesions: median probability {np.median(chances[chosen]):.2f}.")
    if figure is not None:
        _draw(predicted, dice, chances, true, model.least_dice, figure)


def _draw(
    predicted: np.ndarray, dice: np.ndarray, chances: np.ndarray, true: np.ndarray, least_dice: float, path: str
) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 4.2), facecolor="white", layout="constrained")
    masks, lesions = picture.subplots(1, 2)
    masks.axvspan(0, least_dice, color="#E69F00", alpha=0.15, label="flagged")
    masks.plot(predicted, dice, "o", color="#0072B2", alpha=0.7)
    masks.set(xlabel="predicted Dice", ylabel="Dice with the truth", title=f"{len(dice)} masks")
    masks.legend(frameon=False, loc="upper left")
    edges = np.quantile(chances, np.linspace(0, 1, _BINS + 1))
    which = np.clip(np.searchsorted(edges, chances, side="right") - 1, 0, _BINS - 1)
    means = [(chances[which == each].mean(), true[which == each].mean()) for each in np.unique(which)]
    lesions.plot(*zip(*means, strict=True), "o-", color="#0072B2")
    lesions.set(xlabel="probability that it is a lesion", ylabel="share that is one", title=f"{len(true)} lesions")
    for axes in (masks, lesions):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, zorder=0)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), aspect="equal")
    picture.savefig(path, dpi=110)


if __name__ == "__main__":
    run_command(quality)
