"""One simulated case, from a head, a lesion mask and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bundle.data.simulate.acquisition import acquire, deface, strip_skull
from bundle.data.simulate.anatomy import add_lacunes, add_white_matter_changes, widen_fluid_spaces
from bundle.data.simulate.lesions import LesionMasks, box_of, draw_lesion, draw_volume_ml, fit_lesion
from bundle.data.simulate.painting import paint_lesion
from bundle.data.simulate.tissues import Head, Tissue, has_skull

__all__ = ["SimulatedCase", "simulate_case"]

_TRIES = 20
_FURTHER_ML = (0.1, 6.0)


@dataclass(frozen=True)
class SimulatedCase:
    """A simulated T1w volume on the ATLAS grid (197 x 233 x 189, 1 mm, MNI) and its ground truth.

    Args:
        image: float32, 0 outside the head, about 1 at the white matter mode.
        label: uint8, 1 in the lesion.
        record: what was done.
    """

    image: np.ndarray
    label: np.ndarray
    record: dict[str, Any]


def _place_lesion(
    head: Head, masks: LesionMasks | None, volume_ml: float, rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """A lesion of about the volume in the head's tissue, before the head is changed by it."""
    opens = volume_ml > 5 and bool(rng.random() < 0.4)
    for _ in range(_TRIES if masks else 0):
        assert masks is not None
        file, mask = masks.draw(rng, volume_ml)
        lesion = fit_lesion(mask, head.tissue, rng, opens)
        if lesion is not None:
            return Path(file).name, lesion
    solid = (head.tissue == Tissue.GREY) | (head.tissue == Tissue.WHITE)
    shares = rng.dirichlet(np.ones(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])))
    lesions = [draw_lesion(solid, max(volume_ml * share, 0.03), rng) for share in shares]
    return "procedural", np.logical_or.reduce(lesions)


def _place_further_lesions(
    head: Head, masks: LesionMasks | None, mean: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Small lesions of their own, as many as a Poisson distribution of that mean gives."""
    smallest, largest = np.log(_FURTHER_ML)
    volumes_ml = np.exp(rng.uniform(smallest, largest, size=rng.poisson(mean)))
    return [_place_lesion(head, masks, float(volume_ml), rng)[1] for volume_ml in volumes_ml]


def _bare(image: np.ndarray, tissue: np.ndarray, record: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Return the image stripped of its skull or defaced, in a share of the cases, and record which."""
    whole = has_skull(tissue)
    record["skull_stripped"] = not whole or bool(rng.random() < 0.4)
    record["defaced"] = whole and not record["skull_stripped"] and bool(rng.random() < 0.5)
    if whole and record["skull_stripped"]:
        return strip_skull(image, tissue, rng)
    return deface(image, tissue, rng) if record["defaced"] else image


def simulate_case(
    head: Head,
    rng: np.random.Generator,
    masks: LesionMasks | None = None,
    volume_ml: float | None = None,
    further_lesions: float = 0.0,
) -> SimulatedCase:
    """A scan of the head with chronic lesions.

    Args:
        head: a healthy head.
        rng: source of randomness; the same state gives the same case.
        masks: where the lesions' shapes come from; procedural ones if None.
        volume_ml: about the volume of the lesion; drawn from ATLAS's distribution, or a balanced bank's, if None, and 0
            is a healthy head.
        further_lesions: how many small lesions of 0.1 to 6 mL come on top on average, each with a look of its own. A
            network that trains sees more of what it finds hardest in the same time; cohorts to measure with have none.

    Returns:
        the case; its lesion is what the image shows, so its volume differs somewhat from the one asked for.
    """
    if volume_ml is None:
        volume_ml = masks.draw_volume_ml(rng) if masks else draw_volume_ml(rng)
    image, tissue = head.t1w(rng), head.tissue
    lesions: list[np.ndarray] = []
    record: dict[str, Any] = {"head": head.name, "mask": None}
    box = box_of(tissue >= Tissue.CSF, 4)
    if volume_ml > 0:
        record["mask"], lesion = _place_lesion(head, masks, volume_ml, rng)
        lesions = [lesion]
        if further_lesions > 0:
            lesions += _place_further_lesions(head, masks, further_lesions, rng)
    record["further_lesions"] = max(len(lesions) - 1, 0)
    label = np.logical_or.reduce(lesions) if lesions else np.zeros(tissue.shape, dtype=bool)
    widened, tissue_in_box = widen_fluid_spaces(image[box], tissue[box], rng, label[box] if label.any() else None)
    image[box], tissue = widened, tissue.copy()
    tissue[box] = tissue_in_box
    # What the ventricle has taken is fluid, not lesion.
    label &= tissue != Tissue.VENTRICLE
    record["white_matter_changes"] = bool(rng.random() < 0.5)
    if record["white_matter_changes"]:
        image[box] = add_white_matter_changes(image[box], tissue[box], rng)
    record["lacunes"] = int(rng.poisson(1.5))
    image[box] = add_lacunes(image[box], tissue[box], rng, label[box], record["lacunes"])
    for lesion in lesions:
        lesion &= label
        if lesion.any():
            image = paint_lesion(image, lesion, tissue >= Tissue.GREY, rng)
    image = acquire(_bare(image, tissue, record, rng), rng)
    record["volume_ml"] = int(label.sum()) / 1000
    return SimulatedCase(image, label.astype(np.uint8), record)
