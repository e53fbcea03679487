"""A varied case: with a head shape, lesions, look-alikes, a contrast, an acquisition and a placement of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bundle.data.simulate.acquisition import acquire_varied, deface, strip_skull_loosely
from bundle.data.simulate.anatomy import widen_fluid_spaces
from bundle.data.simulate.case import SimulatedCase
from bundle.data.simulate.contrast import vary_contrast
from bundle.data.simulate.head_shape import misplace, own_shape
from bundle.data.simulate.lesions import LesionMasks, box_of, draw_volume_ml
from bundle.data.simulate.lookalikes import add_lookalikes
from bundle.data.simulate.tissues import Head, Tissue, has_skull
from bundle.data.simulate.varied_lesions import VariedLesion, place_varied_lesions
from bundle.data.simulate.varied_painting import paint_varied_lesion

__all__ = ["simulate_varied_case"]

# Shares of the heads that are whole.
_STRIPPED_SHARE = 0.4
_DEFACED_SHARE = 0.3

_MARGIN = 4
# No shape of its own moves the head's border further than that.
_SHAPE_MARGIN = 16


def _in_own_shape(head: Head, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return image and tissue of the head in a shape of its own, on the ATLAS grid."""
    image, tissue = head.t1w(rng), head.tissue.copy()
    box = box_of((image > 0) | (tissue > Tissue.AIR), _SHAPE_MARGIN)
    image[box], tissue[box] = own_shape(image[box], tissue[box], rng)
    return image, tissue


def _change_brain(
    image: np.ndarray, tissue: np.ndarray, lesions: list[VariedLesion], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Return image, tissue and label of the head with its lesions and look-alikes, and what was done."""
    record: dict[str, Any] = {}
    label = np.zeros(tissue.shape, dtype=bool)
    for lesion in lesions:
        label |= lesion.mask
    # The contrast is that of tissues: it comes before there is a lesion.
    image, record["contrast"] = vary_contrast(image, tissue, rng)
    image, tissue = widen_fluid_spaces(image, tissue, rng, label if label.any() else None)
    image, tissue, record["lookalikes"] = add_lookalikes(image, tissue, rng, label)
    # What the ventricle has taken is fluid, and what has moved out of the brain is gone: neither is lesion.
    label &= (tissue >= Tissue.CSF) & (tissue != Tissue.VENTRICLE)
    for lesion in lesions:
        lesion = replace(lesion, mask=lesion.mask & label)
        if lesion.mask.any():
            image = paint_varied_lesion(image, lesion, tissue, rng)
    record["looks"] = [lesion.look for lesion in lesions]
    return image, tissue, label, record


def _scan(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the head after preprocessing and a scanner, and what they did."""
    whole = has_skull(tissue)
    preparation = rng.choice(
        ["stripped", "defaced", "whole"], p=[_STRIPPED_SHARE, _DEFACED_SHARE, 1 - _STRIPPED_SHARE - _DEFACED_SHARE]
    )
    record = {"skull_stripped": not whole or preparation == "stripped", "defaced": whole and preparation == "defaced"}
    if record["skull_stripped"]:
        image = strip_skull_loosely(image, tissue, rng)
    elif record["defaced"]:
        image = deface(image, tissue, rng)
    image, traces = acquire_varied(image, rng)
    return image, record | {"acquisition": traces}


def simulate_varied_case(
    head: Head,
    rng: np.random.Generator,
    masks: LesionMasks | None = None,
    volume_ml: float | None = None,
    further_lesions: float = 0.0,
) -> SimulatedCase:
    """Return a scan of the head with chronic lesions, in which all that differs between scans is drawn for each case.

    In this order: the shape of the head; the place of the lesions; the contrast, after a contrast agent in a share of
    the cases; the width of the fluid spaces; look-alikes that are not lesion; the look of the lesions; stripping or
    defacing; the acquisition; the placement error of a registration.

    Args:
        head: a healthy head, or one with look-alikes, which gets no lesion.
        rng: source of randomness; the same state gives the same case.
        masks: where the lesions' shapes come from; procedural ones if None.
        volume_ml: about the volume of the lesion; drawn from ATLAS's distribution, or a balanced bank's, if None, and 0
            is a healthy head.
        further_lesions: how many small lesions of 0.1 to 6 mL come on top on average.

    Returns:
        the case; its lesion is what the image shows, so its volume differs somewhat from the one asked for.
    """
    if head.lookalikes:
        volume_ml = 0.0
    elif volume_ml is None:
        volume_ml = masks.draw_volume_ml(rng) if masks else draw_volume_ml(rng)
    image, tissue = _in_own_shape(head, rng)
    lesions = place_varied_lesions(tissue, masks, volume_ml, rng, further_lesions) if volume_ml > 0 else []
    # A skull-stripped head is half of the grid: everything is quicker inside its box.
    box = box_of((image > 0) | (tissue > Tissue.AIR), _MARGIN)
    cropped = [replace(lesion, mask=lesion.mask[box]) for lesion in lesions]
    scan, tissue_in_box, lesion, changes = _change_brain(image[box], tissue[box], cropped, rng)
    scan, preparation = _scan(scan, tissue_in_box, rng)
    # What stripping took away is not on the scan.
    scan, lesion = misplace(scan, (lesion & (scan > 0)).astype(np.uint8), rng)
    image, label = np.zeros_like(image), np.zeros(tissue.shape, dtype=np.uint8)
    image[box], label[box] = scan, lesion
    record = {
        "head": head.name,
        "mask": lesions[0].source if lesions else None,
        "further_lesions": max(len(lesions) - 1, 0),
        **changes,
        **preparation,
        "volume_ml": int(label.sum()) / 1000,
    }
    return SimulatedCase(image, label, record)
