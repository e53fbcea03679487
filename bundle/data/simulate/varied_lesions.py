"""Where chronic strokes lie, in more kinds than the masks of acute strokes have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise, upsample
from bundle.data.simulate.lesions import LesionMasks, box_of, draw_lesion, fit_lesion
from bundle.data.simulate.tissues import Tissue

__all__ = ["Look", "VariedLesion", "extend_to_dura", "place_varied_lesions"]

Look = Literal["cavity", "mixed", "gliotic", "laminar", "subacute"]

# Shares of the kinds of a lesion of up to 1 mL, up to 10 mL and larger: chosen so that a network sees each of them, not
# taken from a cohort. Lacunar infarcts are small. The other lesions have the shape of a mask.
_KINDS = ("masked", "lacunar", "thin cortical", "laminar", "convexity")
_KIND_SHARES = {1.0: (0.4, 0.35, 0.17, 0.05, 0.03), 10.0: (0.6, 0.0, 0.15, 0.1, 0.15), np.inf: (0.85, 0, 0, 0.03, 0.12)}

# A cavity that reaches the cortex has as a rule lost the cortex too: raters draw it up to the dura.
_TO_DURA_ABOVE_ML = 2.0
_TO_DURA = 0.7
# What is left of the cortex and the fluid over it: a lesion deeper than that keeps its cortex.
_GAP_MM = 12
_BALL = np.linalg.norm(np.indices((5, 5, 5)) - 2, axis=0) < 2.3

# Looks by kind; a lesion that reaches the dura is most often a cavity.
_LOOKS: dict[str, dict[Look, float]] = {
    "masked": {"mixed": 0.5, "cavity": 0.2, "gliotic": 0.18, "subacute": 0.12},
    "to the dura": {"cavity": 0.65, "mixed": 0.3, "gliotic": 0.05},
    "lacunar": {"cavity": 0.6, "mixed": 0.3, "gliotic": 0.1},
    "thin cortical": {"mixed": 0.4, "cavity": 0.35, "gliotic": 0.25},
    "laminar": {"laminar": 1.0},
}

# Shares of the cases with a second lesion of another look, and of large lesions with a scar beside a cavity:
# chosen, not measured.
_OLDER_LESION = 0.17
_TWO_PARTS, _TWO_PARTS_ABOVE_ML = 0.25, 5.0

_FURTHER_ML = (0.1, 6.0)
_LACUNAR_ML = (0.1, 1.0)
_THIN_MM = (2.0, 4.0)
_AT_HULL_MM = 3
_DEEP_MM = 18
_CORTEX_WITHIN_MM = 30
_LARGEST_CORTICAL_ML = 30.0
_CEREBELLUM = (0.45, 0.35)
_CONVEXITY_MM = 12
_TRIES = 10
_SMALLEST_VOXELS = 30


@dataclass
class VariedLesion:
    """A lesion with a look of its own.

    Args:
        mask: boolean, on the grid of the head's tissue (ATLAS: 197 x 233 x 189, 1 mm).
        look: how it is painted.
        source: the kind, with the name of the file of a mask.
    """

    mask: np.ndarray
    look: Look
    source: str


def _closed(mask: np.ndarray, iterations: int) -> np.ndarray:
    """The mask with what a ball of 2 voxels an iteration cannot enter from outside; the array's edge is no border."""
    grown = ndimage.binary_dilation(mask, _BALL, iterations=iterations)
    closed: np.ndarray = ndimage.binary_erosion(grown, _BALL, iterations=iterations, border_value=1)
    return closed | mask


def _depth_mm(tissue: np.ndarray) -> np.ndarray:
    """Distance to the brain's outer hull, taken on every second voxel."""
    coarse = _closed(np.pad(tissue[::2, ::2, ::2] >= Tissue.CSF, 5, mode="edge"), 2)
    return upsample(ndimage.distance_transform_edt(coarse, sampling=2)[5:-5, 5:-5, 5:-5], tissue.shape)


def _sides(lesion: np.ndarray) -> np.ndarray:
    """The hemispheres that a lesion is in, ``(H, 1, 1)``."""
    right = np.arange(len(lesion)) > (len(lesion) - 1) / 2
    across = np.asarray(lesion.any(axis=(1, 2)))
    return np.where(right, across[right].any(), across[~right].any())[:, None, None]


def extend_to_dura(lesion: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The lesion with the cortex and the fluid that lie between it and the brain's outer hull, as raters draw it.

    Args:
        lesion: boolean ``(H, W, D)`` at 1 mm, not empty; the midline is in the middle of the first axis.
        tissue: :class:`Tissue` of each voxel.

    Returns:
        boolean mask; nothing is added where the hull is farther than 12 mm, outside the brain, in ventricles, or in a
        hemisphere that the lesion is not in.
    """
    box = box_of(lesion, _GAP_MM + 4)
    codes = tissue[box]
    reach = _GAP_MM // 4
    outside = ~_closed(codes >= Tissue.CSF, reach)
    between = _closed(lesion[box] | outside, reach) & ~_closed(outside, reach)
    filled = lesion[box] | between
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(filled, 2, 0)], axis=2)
    filled &= (codes >= Tissue.CSF) & (codes != Tissue.VENTRICLE) & _sides(lesion)[box[0]]
    # A thin strip along a neighbouring gyrus that is still there is over no lesion.
    filled &= lesion[box] | ndimage.binary_opening(np.pad(filled, 4), _BALL)[4:-4, 4:-4, 4:-4]
    # Pieces of their own, such as a bit of a neighbouring gyrus, are not added.
    extended = lesion.copy()
    extended[box] |= ndimage.binary_propagation(lesion[box] & filled, mask=filled)
    return extended


def _masked(
    tissue: np.ndarray, masks: LesionMasks | None, volume_ml: float, rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """A lesion with the shape of a mask, or a procedural one where there is none that fits."""
    opens = volume_ml > 5 and bool(rng.random() < 0.4)
    for _ in range(_TRIES if masks else 0):
        assert masks is not None
        file, mask = masks.draw(rng, volume_ml)
        lesion = fit_lesion(mask, tissue, rng, opens)
        if lesion is not None:
            return Path(file).name, lesion
    return "procedural", draw_lesion(_solid(tissue), volume_ml, rng)


def _solid(tissue: np.ndarray) -> np.ndarray:
    return (tissue == Tissue.GREY) | (tissue == Tissue.WHITE)


def _lacunar(tissue: np.ndarray, depth_mm: np.ndarray, volume_ml: float, rng: np.random.Generator) -> np.ndarray:
    """A small infarct of basal ganglia, thalamus, brainstem or deep white matter."""
    deep = _solid(tissue) & (depth_mm > _DEEP_MM)
    # Off the cortex that lies as deep, beside the insula or the falx.
    white = ndimage.uniform_filter((tissue == Tissue.WHITE).astype(np.float32), 9) > 0.4
    smallest, largest = _LACUNAR_ML
    return draw_lesion(deep & white, float(np.clip(volume_ml, smallest, largest)), rng)


def _cortical(
    tissue: np.ndarray, depth_mm: np.ndarray, volume_ml: float, thickness_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """A strip of cortex along the gyri, from the white matter outwards."""
    grey = (tissue == Tissue.GREY) & (depth_mm < _CORTEX_WITHIN_MM)
    box = box_of(grey, 0)
    # The cerebellum lies behind and below; its folia are too fine.
    behind, below = (b.start + int(share * (b.stop - b.start)) for b, share in zip(box[1:], _CEREBELLUM, strict=True))
    grey[:, :behind, :below] = False
    volume_ml = min(volume_ml, _LARGEST_CORTICAL_ML)
    at_white = grey & ndimage.binary_dilation(tissue == Tissue.WHITE, iterations=int(thickness_mm))
    centre = rng.choice(np.argwhere(at_white))
    reach = int(60 * (volume_ml / _LARGEST_CORTICAL_ML) ** (1 / 3)) + 10
    window = tuple(slice(max(c - reach, 0), c + reach) for c in centre)
    ribbon, middle = np.zeros_like(grey), np.zeros_like(grey)
    ribbon[window] = grey[window] & (ndimage.distance_transform_edt(tissue[window] != Tissue.WHITE) <= thickness_mm)
    middle[tuple(centre)] = True
    return draw_lesion(ribbon, volume_ml, rng, centres=middle)


def _convexity(
    tissue: np.ndarray, masks: LesionMasks | None, volume_ml: float, rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """A lesion at the top of the brain: a mask that is moved there, or a procedural one."""
    solid = _solid(tissue)
    top = int(np.flatnonzero(solid.any(axis=(0, 1)))[-1])
    surface = np.zeros_like(solid)
    upper = np.s_[:, :, top - _CONVEXITY_MM :]
    surface[upper] = solid[upper] & (ndimage.distance_transform_edt(solid[upper]) <= 4)
    places = np.argwhere(surface)
    right = (np.arange(len(tissue)) > (len(tissue) - 1) / 2)[:, None, None]
    for _ in range(_TRIES if masks else 0):
        assert masks is not None
        file, mask = masks.draw(rng, volume_ml)
        mask = mask if rng.random() < 0.5 else mask[::-1]
        voxels = np.argwhere(mask)
        place = rng.choice(places)
        moved = voxels - np.round(voxels.mean(axis=0)).astype(int) + place - (0, 0, rng.integers(0, 6))
        moved = moved[((moved >= 0) & (moved < tissue.shape)).all(axis=1)]
        shifted = np.zeros_like(solid)
        shifted[tuple(moved.T)] = True
        shifted &= right == right[place[0]]
        lesion = fit_lesion(shifted, tissue, rng, opens=True) if shifted.any() else None
        if lesion is not None and np.flatnonzero(lesion.any(axis=(0, 1)))[-1] >= top - _CONVEXITY_MM:
            return f"{Path(file).name} at the convexity", extend_to_dura(lesion, tissue)
    return "procedural at the convexity", extend_to_dura(draw_lesion(solid, volume_ml, rng, centres=surface), tissue)


def _draw_look(kind: str, rng: np.random.Generator, unlike: Look | None = None) -> Look:
    shares = {look: share for look, share in _LOOKS[kind].items() if look != unlike}
    weights = np.array(list(shares.values()))
    return list(shares)[rng.choice(len(shares), p=weights / weights.sum())]


def _place(
    tissue: np.ndarray, depth_mm: np.ndarray, masks: LesionMasks | None, volume_ml: float, rng: np.random.Generator
) -> VariedLesion:
    """One lesion of a kind that fits its volume."""
    shares = next(shares for largest, shares in _KIND_SHARES.items() if volume_ml <= largest)
    kind = _KINDS[rng.choice(len(_KINDS), p=shares)]
    if kind == "lacunar":
        return VariedLesion(_lacunar(tissue, depth_mm, volume_ml, rng), _draw_look(kind, rng), kind)
    if kind in ("thin cortical", "laminar"):
        thickness_mm = rng.uniform(*_THIN_MM)
        return VariedLesion(_cortical(tissue, depth_mm, volume_ml, thickness_mm, rng), _draw_look(kind, rng), kind)
    if kind == "convexity":
        source, mask = _convexity(tissue, masks, volume_ml, rng)
        return VariedLesion(mask, _draw_look("to the dura", rng), source)
    source, mask = _masked(tissue, masks, volume_ml, rng)
    if volume_ml > _TO_DURA_ABOVE_ML and rng.random() < _TO_DURA:
        extended = extend_to_dura(mask, tissue)
        added = extended & ~mask
        if added.any() and depth_mm[added].min() < _AT_HULL_MM:
            return VariedLesion(extended, _draw_look("to the dura", rng), f"{source} to the dura")
    return VariedLesion(mask, _draw_look("masked", rng), source)


def _in_two_parts(lesion: VariedLesion, rng: np.random.Generator) -> list[VariedLesion]:
    """The lesion cut by a rough plane, each part with a look of its own."""
    box = box_of(lesion.mask, 0)
    inside = lesion.mask[box]
    direction = rng.normal(size=3)
    grid = np.meshgrid(*(np.arange(extent) - extent / 2 for extent in inside.shape), indexing="ij")
    height = sum(d * g for d, g in zip(direction / np.linalg.norm(direction), grid, strict=True))
    height = height + 5 * smooth_noise(rng, inside.shape, 10.0)
    part = np.zeros_like(lesion.mask)
    part[box] = inside & (height > np.quantile(height[inside], rng.uniform(0.3, 0.7)))
    other = _draw_look("masked", rng, unlike=lesion.look)
    return [
        VariedLesion(lesion.mask & ~part, lesion.look, lesion.source),
        VariedLesion(part, other, lesion.source),
    ]


def place_varied_lesions(
    tissue: np.ndarray,
    masks: LesionMasks | None,
    volume_ml: float,
    rng: np.random.Generator,
    further_lesions: float = 0.0,
) -> list[VariedLesion]:
    """Lesions of a case: one of about the volume, sometimes in two parts or with an older one, and further small ones.

    Args:
        tissue: :class:`Tissue` of each voxel of the head, ``(H, W, D)`` at 1 mm, the midline in the middle of the first
            axis and the last axis pointing to the top.
        masks: where the lesions' shapes come from; procedural ones if None.
        volume_ml: about the volume of the first lesion.
        rng: source of randomness; the same state gives the same lesions.
        further_lesions: how many small lesions of 0.1 to 6 mL come on top on average.

    Returns:
        lesions that do not overlap, in the order in which they are to be painted; none is outside the brain or in a
        ventricle.
    """
    depth_mm = _depth_mm(tissue)
    first = _place(tissue, depth_mm, masks, volume_ml, rng)
    divided = first.mask.sum() > 1000 * _TWO_PARTS_ABOVE_ML and rng.random() < _TWO_PARTS
    lesions = _in_two_parts(first, rng) if divided else [first]
    older = bool(rng.random() < _OLDER_LESION)
    smallest, largest = np.log(_FURTHER_ML)
    volumes_ml = np.exp(rng.uniform(smallest, largest, size=older + rng.poisson(further_lesions)))
    taken = first.mask.copy()
    for number, further_ml in enumerate(volumes_ml):
        further = _place(tissue, depth_mm, masks, float(further_ml), rng)
        whole = int(further.mask.sum())
        further.mask = further.mask & ~taken
        # What is left of one that the others cover is no lesion of its own.
        if further.mask.sum() < max(0.5 * whole, _SMALLEST_VOXELS):
            continue
        if older and number == 0 and further.look == first.look and further.look != "laminar":
            further.look = _draw_look("masked", rng, unlike=first.look)
        taken |= further.mask
        lesions.append(further)
    return lesions
