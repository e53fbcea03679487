"""What looks like a stroke and is none: lesions of multiple sclerosis and of age, perivascular spaces, wide fluid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from bundle.data.simulate.anatomy import add_lacunes, widen_sulci_regionally
from bundle.data.simulate.fields import smooth_noise, upsample
from bundle.data.simulate.fluid_spaces import add_arachnoid_cyst, add_septum_cavity, enlarge_cisterna_magna
from bundle.data.simulate.landmarks import COARSE, fluid_level, offset_from_midline
from bundle.data.simulate.lesions import box_of
from bundle.data.simulate.tissues import Tissue

__all__ = ["add_lookalikes", "add_ms_lesions", "add_perivascular_spaces", "add_white_matter_caps"]

AddLookalike = Callable[
    [np.ndarray, np.ndarray, np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # image, tissue, rng, keep_off

_LACUNES_MEAN = 1.5
# A voxel that is this much darker after a small hole was put there counts as fluid.
_FLUID_LOSS = 0.2
# Small holes are so much farther from what is to be kept, so that nothing merges with a lesion.
_APART_MM = 4
_MARGIN_MM = 8


def _ventricle_distance(tissue: np.ndarray) -> np.ndarray:
    """Distance in mm from the ventricles on the coarse grid; 100 everywhere where there is none."""
    ventricle = tissue[::COARSE, ::COARSE, ::COARSE] == Tissue.VENTRICLE
    if not ventricle.any():
        return np.full(ventricle.shape, 100, dtype=np.float32)
    distance: np.ndarray = ndimage.distance_transform_edt(~ventricle, sampling=COARSE).astype(np.float32)
    return distance


def _direction(distance: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Unit vector away from where the distance is 0, at a place on the distance's grid."""
    index = np.clip(place, 1, np.array(distance.shape) - 2)
    box = distance[tuple(slice(i - 1, i + 2) for i in index)]
    steps = np.array([g[1, 1, 1] for g in np.gradient(box)])
    direction: np.ndarray = steps / max(float(np.linalg.norm(steps)), 1e-3)
    return direction


def _ellipsoid_in_box(
    shape: tuple[int, ...], centre: np.ndarray, axis: np.ndarray, along: float, across: float
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A box around an ellipsoid of revolution, and in it the distance from the middle in radii."""
    reach = int(np.ceil(max(along, across))) + 3
    box = tuple(slice(max(int(c) - reach, 0), min(int(c) + reach + 1, n)) for c, n in zip(centre, shape, strict=True))
    away = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), -1) - centre
    parallel = away @ axis
    perpendicular = np.sqrt(np.maximum((away**2).sum(-1) - parallel**2, 0))
    return box, np.hypot(parallel / along, perpendicular / across)


def _ms_places(tissue: np.ndarray, distance: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Coarse voxels of the white matter beside the ventricles, under the cortex, and in the corpus callosum."""
    coarse = tissue[::COARSE, ::COARSE, ::COARSE]
    white = coarse == Tissue.WHITE
    cortex = ndimage.distance_transform_edt(coarse != Tissue.GREY, sampling=COARSE)
    midline = np.abs(offset_from_midline(tissue)[::COARSE, ::COARSE, ::COARSE])
    sites = {
        "periventricular": white & (distance < 9) & (midline > 8),
        "juxtacortical": white & (cortex < 5) & (distance > 12),
        "callosal": white & (distance < 8) & (midline < 8),
        "deep": white & (distance >= 9),
    }
    return {name: np.argwhere(site) for name, site in sites.items() if site.any()}


_MS_SITES = {"periventricular": 0.5, "juxtacortical": 0.2, "callosal": 0.1, "deep": 0.2}


def add_ms_lesions(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with lesions like those of multiple sclerosis: ovoid, in the white matter, of 0.05 to 2 mL.

    Those beside the ventricles stand upright on them (Dawson's fingers). Most are at 0.6 to 0.9 of the white matter's
    intensity, some at 0.3 to 0.5 (black holes).

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image, changed, and tissue.
    """
    distance = _ventricle_distance(tissue)
    places = _ms_places(tissue, distance, rng)
    if not places:
        return image, tissue
    changed = image.copy()
    names = [name for name in _MS_SITES if name in places]
    weights = np.array([_MS_SITES[name] for name in names])
    hole_share, usual_level = rng.uniform(0, 0.3), rng.uniform(0.65, 0.85)
    for _ in range(int(np.exp(rng.uniform(np.log(3), np.log(40))))):
        place = rng.choice(places[names[rng.choice(len(names), p=weights / weights.sum())]])
        volume_ml = np.exp(np.clip(rng.normal(np.log(0.2), 0.9), np.log(0.05), np.log(2.0)))
        elongation = rng.uniform(1.0, 2.5)
        across = (volume_ml * 1000 * 3 / (4 * np.pi * elongation)) ** (1 / 3)
        axis = _direction(distance, place) + 0.3 * rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
        box, radius = _ellipsoid_in_box(image.shape, place * COARSE, axis, across * elongation, across)
        lumpy = radius * (1 + 0.2 * smooth_noise(rng, radius.shape, 4.0))
        share = np.clip((1 - lumpy) * across / rng.uniform(1.0, 2.5) + 0.5, 0, 1)
        white = ndimage.uniform_filter((tissue[box] == Tissue.WHITE).astype(np.float32), 3)
        share *= white * ~keep_off[box]
        # One lesion is in one piece: it does not reach over a sulcus into the next gyrus.
        pieces, _ = ndimage.label(share > 0.1)
        own = pieces[tuple(c - s.start for c, s in zip(place * COARSE, box, strict=True))]
        share *= (pieces == own) & (own > 0)
        level = np.clip(usual_level + rng.normal(0, 0.05), 0.6, 0.9)
        if rng.random() < hole_share:
            hole = np.clip((rng.uniform(0.5, 1.0) - lumpy) * across / 1.5 + 0.5, 0, 1)
            level = level * (1 - hole) + rng.uniform(0.3, 0.5) * hole
        changed[box] += share * np.minimum(level * image[box] - changed[box], 0)
    return changed, tissue


def add_white_matter_caps(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with white matter lesions of age: caps and a halo around the ventricles that flow together.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image, changed to 0.55 to 0.85 of its intensity in them, and tissue.
    """
    distance = _ventricle_distance(tissue)
    # Where the ventricle's border is convex the white matter is close to it on one side only: the horns' caps.
    ventricle = (tissue[::COARSE, ::COARSE, ::COARSE] == Tissue.VENTRICLE).astype(np.float32)
    crowded = ndimage.gaussian_filter(ventricle, 4.0)
    reach_mm = rng.uniform(0.5, 6) * (1 + 0.5 * smooth_noise(rng, distance.shape, rng.uniform(5, 10)))
    reach_mm += rng.uniform(0, 4) * np.clip(1 - crowded / 0.15, 0, 1) * (distance < 10)
    spots = rng.uniform(2, 5) * np.maximum(smooth_noise(rng, distance.shape, 4.0) - rng.uniform(1.8, 2.8), 0)
    share = np.maximum(np.clip((reach_mm - distance) / 3, 0, 1), np.clip(spots, 0, 1) * (distance < 30))
    share = upsample(ndimage.gaussian_filter(share.astype(np.float32), 0.6), tissue.shape)
    white = ndimage.uniform_filter((tissue == Tissue.WHITE).astype(np.float32), 3) * (tissue == Tissue.WHITE)
    changed = image * (1 - rng.uniform(0.15, 0.45) * share * white * ~keep_off)
    return changed.astype(np.float32), tissue


def _as_fluid(tissue: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.where(before - after > _FLUID_LOSS, np.uint8(Tissue.CSF), tissue)


def add_perivascular_spaces(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the head with rows of large perivascular spaces: tubes of fluid, 1 to 2 mm wide.

    In the centrum semiovale they point from the ventricles to the cortex, in the basal ganglia they stand upright.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness.
        keep_off: boolean, where nothing is changed.

    Returns:
        image and tissue, changed; the fluid is :attr:`Tissue.CSF`.
    """
    distance = _ventricle_distance(tissue)
    coarse = tissue[::COARSE, ::COARSE, ::COARSE]
    depth = ndimage.distance_transform_edt(coarse >= Tissue.CSF, sampling=COARSE)
    height = np.arange(coarse.shape[2]) > np.flatnonzero((coarse >= Tissue.CSF).any(axis=(0, 1))).mean()
    centrum = np.argwhere((coarse == Tissue.WHITE) & (distance > 4) & (distance < 25) & (depth > 12) & height)
    ganglia = np.argwhere((coarse == Tissue.GREY) & (distance < 20) & (depth > 26))
    level = fluid_level(image, tissue)
    changed = image.copy()
    for sites, upright in ((centrum, False), (ganglia, True)):
        for _ in range(int(rng.integers(0, 7)) if len(sites) else 0):
            place = rng.choice(sites) * COARSE
            row = np.array([rng.normal(0, 0.3), 1.0, rng.normal(0, 0.3)]) * rng.uniform(3, 5)
            for number in range(int(rng.integers(2, 9))):
                centre = np.round(place + number * row + rng.normal(0, 1, 3)).astype(int)
                index = centre // COARSE
                if (index < 0).any() or (index >= coarse.shape).any():
                    break
                axis = np.array([0.0, 0.0, 1.0]) if upright else _direction(distance, index)
                axis = axis + 0.15 * rng.standard_normal(3)
                axis /= np.linalg.norm(axis)
                across = rng.uniform(0.5, 1.0)
                box, radius = _ellipsoid_in_box(image.shape, centre, axis, rng.uniform(3, 8), across)
                solid = ((tissue[box] == Tissue.WHITE) | (tissue[box] == Tissue.GREY)) & ~keep_off[box]
                share = np.clip((1.3 - radius) * across / 0.7, 0, 1) * rng.uniform(0.5, 1.0) * solid
                changed[box] += share * np.minimum(level - changed[box], 0)
    return changed, _as_fluid(tissue, image, changed)


def _add_few_lacunes(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    changed = add_lacunes(image, tissue, rng, keep_off, 1 + int(rng.poisson(_LACUNES_MEAN)))
    return changed, _as_fluid(tissue, image, changed)


# Share of the cases with each, drawn one by one, in this order: what moves tissue comes before what is put into it.
_LOOKALIKES: dict[str, tuple[float, AddLookalike]] = {
    "wide sulci": (0.15, widen_sulci_regionally),
    "arachnoid cyst": (0.08, add_arachnoid_cyst),
    "mega cisterna magna": (0.06, enlarge_cisterna_magna),
    "cavity of the septum": (0.06, add_septum_cavity),
    "white matter lesions of age": (0.30, add_white_matter_caps),
    "MS-like lesions": (0.15, add_ms_lesions),
    "perivascular spaces": (0.15, add_perivascular_spaces),
    "lacunes": (0.50, _add_few_lacunes),
}


def add_lookalikes(
    image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, keep_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the head with things that are not stroke, each in a share of the cases.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness; the same state gives the same bytes.
        keep_off: boolean, where nothing is changed: the place of the lesion.

    Returns:
        image and tissue, changed, and the names of what was added. What has become fluid is so in the tissues too.
    """
    changed, changed_tissue, names = image.copy(), tissue.copy(), []
    box = box_of(tissue >= Tissue.CSF, _MARGIN_MM)
    kept = keep_off[box]
    apart = ndimage.binary_dilation(kept, iterations=_APART_MM) if kept.any() else kept
    for name, (share, add) in _LOOKALIKES.items():
        if rng.random() < share:
            changed[box], changed_tissue[box] = add(changed[box], changed_tissue[box], rng, apart)
            names.append(name)
    # A hole whose middle is outside may still reach in.
    changed[keep_off], changed_tissue[keep_off] = image[keep_off], tissue[keep_off]
    return changed, changed_tissue, names
