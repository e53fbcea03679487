"""What looks like a stroke and is none: where it is, how dark, and that it keeps off the lesion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, Tissue
from bundle.data.simulate.landmarks import fluid_level
from bundle.data.simulate.lookalikes import (
    add_lookalikes,
    add_ms_lesions,
    add_perivascular_spaces,
    add_white_matter_caps,
)

pytestmark = pytest.mark.slow

FLUID = (Tissue.CSF, Tissue.VENTRICLE)
Volumes = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def volumes(template_head: Head) -> Volumes:
    """Image, tissue, and a place to keep off: a box in the left hemisphere."""
    assert template_head.image is not None
    keep_off = np.zeros(template_head.tissue.shape, dtype=bool)
    keep_off[55:85, 90:150, 70:110] = True
    return template_head.image, template_head.tissue, keep_off


def test_ms_lesions_are_in_white_matter_near_the_ventricles_and_not_as_dark_as_fluid(volumes: Volumes) -> None:
    image, tissue, keep_off = volumes
    from_ventricle = ndimage.distance_transform_edt(tissue != Tissue.VENTRICLE)
    near, levels, sizes = [], [], []
    for seed in range(4):
        changed, same = add_ms_lesions(image, tissue, np.random.default_rng(seed), keep_off)
        assert np.array_equal(same, tissue)
        assert np.array_equal(changed[keep_off], image[keep_off])
        assert (changed <= image).all()
        lesion = changed < 0.93 * image
        assert ndimage.binary_dilation(tissue == Tissue.WHITE, np.ones((3, 3, 3)))[lesion].all()
        near.append((from_ventricle[lesion] < 15).mean())
        levels.append(changed[lesion] / image[lesion])
        pieces, found = ndimage.label(lesion)
        assert found >= 2
        sizes.append(np.bincount(pieces.ravel())[1:])
    assert np.mean(near) > 0.4
    share = np.concatenate(levels)
    assert 0.55 < np.percentile(share, 30) < 0.9
    assert share.min() < 0.5  # black holes
    assert (share < 0.5).mean() < 0.25
    # By volume nearly all is in lesions of 0.03 mL or more; some have flowed together.
    voxels = np.concatenate(sizes)
    assert voxels[voxels >= 30].sum() > 0.85 * voxels.sum()
    assert 50 < np.median(voxels[voxels >= 30]) < 1000


def test_caps_are_white_matter_beside_the_ventricles(volumes: Volumes) -> None:
    image, tissue, keep_off = volumes
    from_ventricle = ndimage.distance_transform_edt(tissue != Tissue.VENTRICLE)
    white = tissue == Tissue.WHITE
    sizes_ml = []
    for seed in range(4):
        changed, _ = add_white_matter_caps(image, tissue, np.random.default_rng(seed), keep_off)
        assert np.array_equal(changed[~white | keep_off], image[~white | keep_off])
        assert (changed >= 0.55 * image - 1e-6).all()
        dark = changed < 0.9 * image
        sizes_ml.append(dark.sum() / 1000)
        around, away = (white & (from_ventricle < 3) & ~keep_off), (white & (from_ventricle > 35))
        assert dark[around].mean() > 3 * dark[away].mean()
    assert 1 < np.median(sizes_ml) < 80


def test_perivascular_spaces_are_thin_tubes_of_fluid(volumes: Volumes) -> None:
    image, tissue, keep_off = volumes
    sizes = []
    for seed in range(4):
        changed, changed_tissue = add_perivascular_spaces(image, tissue, np.random.default_rng(seed), keep_off)
        dark = changed < image - 0.2
        assert not dark[keep_off].any()
        assert (changed_tissue[dark] == Tissue.CSF).all()
        assert np.array_equal(changed_tissue[~dark], tissue[~dark])
        assert changed.min() >= min(image.min(), fluid_level(image, tissue))
        # Nowhere more than 3 mm wide, but for where two touch; longer than wide.
        assert ndimage.binary_erosion(dark, np.ones((3, 3, 3))).sum() < 0.05 * dark.sum()
        pieces, found = ndimage.label(dark, np.ones((3, 3, 3)))
        sizes += [max(s.stop - s.start for s in box) for box in ndimage.find_objects(pieces)] if found else []
    assert len(sizes) > 20
    assert np.median(sizes) >= 3


def test_nothing_is_put_where_the_lesion_is_and_fluid_is_fluid_in_the_tissues(volumes: Volumes) -> None:
    image, tissue, keep_off = volumes
    before = image.copy(), tissue.copy()
    seen: set[str] = set()
    for seed in range(12):
        changed, changed_tissue, names = add_lookalikes(image, tissue, np.random.default_rng(seed), keep_off)
        seen |= set(names)
        assert (changed.shape, changed.dtype) == (image.shape, np.float32)
        assert changed_tissue.dtype == np.uint8
        assert np.array_equal(changed[keep_off], image[keep_off])
        assert np.array_equal(changed_tissue[keep_off], tissue[keep_off])
        if "MS-like lesions" in names:  # its black holes are dark and not fluid
            continue
        # Where solid tissue became as dark as fluid over some mm, the tissues say fluid.
        dark = ndimage.binary_opening((changed < 0.35) & (tissue >= Tissue.GREY), iterations=2)
        dark &= (image > 0.5) & (tissue != Tissue.VENTRICLE)
        assert np.isin(changed_tissue[dark], FLUID).sum() >= 0.9 * dark.sum()
    assert {"white matter lesions of age", "lacunes", "MS-like lesions", "wide sulci"} <= seen
    assert np.array_equal(image, before[0])
    assert np.array_equal(tissue, before[1])


def test_look_alikes_depend_on_the_random_state_alone(block_head: Head) -> None:
    image, tissue = block_head.image, block_head.tissue
    assert image is not None
    nothing = np.zeros(tissue.shape, dtype=bool)
    counts: dict[str, int] = {}
    for seed in range(30):
        first = add_lookalikes(image, tissue, np.random.default_rng(seed), nothing)
        if seed < 8:
            again = add_lookalikes(image, tissue, np.random.default_rng(seed), nothing)
            assert [part.tobytes() for part in first[:2]] == [part.tobytes() for part in again[:2]]
            assert first[2] == again[2]
        for name in first[2]:
            counts[name] = counts.get(name, 0) + 1
    assert 8 < counts["lacunes"] < 24
    assert max(counts.get("arachnoid cyst", 0), counts.get("cavity of the septum", 0)) < 8
