"""What a simulated head has besides the lesion: wider fluid spaces, lacunes, changes of the white matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head
from bundle.data.simulate.anatomy import (
    add_lacunes,
    add_white_matter_changes,
    widen_fluid_spaces,
    widen_sulci_regionally,
)
from bundle.data.simulate.tissues import Tissue
from tests.conftest import ellipsoid

MIDDLE = 98 - 60
"""The first voxel right of the middle in the block."""


def ventricles(tissue: np.ndarray) -> np.ndarray:
    """Volume in mL on the left and on the right."""
    inside = tissue == Tissue.VENTRICLE
    return np.array([inside[:MIDDLE].sum(), inside[MIDDLE + 1 :].sum()]) / 1000


@pytest.fixture(scope="module")
def widened(block_head: Head) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ventricles before and after, in five heads with a lesion of 40 mL on the left."""
    lesion = ellipsoid(block_head.tissue.shape, (14, 55, 40), (14, 32, 24))
    lesion &= (block_head.tissue == Tissue.WHITE) | (block_head.tissue == Tissue.GREY)
    assert 30_000 < lesion.sum() < 50_000
    assert (ventricles(block_head.tissue) > 3).all()
    assert block_head.image is not None
    results = []
    for seed in range(5):
        _, tissue = widen_fluid_spaces(block_head.image, block_head.tissue, np.random.default_rng(seed), lesion)
        results.append((ventricles(block_head.tissue), ventricles(tissue)))
    return results


def test_ventricles_are_wider_and_most_beside_the_lesion(widened: list[tuple[np.ndarray, np.ndarray]]) -> None:
    gains = np.array([after / before for before, after in widened])
    assert (gains > 0.99).all()
    left, right = gains.mean(axis=0)
    assert left > 1.3
    assert left > right + 0.2
    assert (gains[:, 0] >= gains[:, 1] - 0.05).all()


def test_without_a_lesion_both_sides_are_alike(block_head: Head) -> None:
    assert block_head.image is not None
    before = ventricles(block_head.tissue)
    gains = np.array(
        [
            ventricles(widen_fluid_spaces(block_head.image, block_head.tissue, np.random.default_rng(seed))[1]) / before
            for seed in range(5)
        ]
    )
    assert gains.mean() > 1.05
    assert np.abs(gains[:, 0] - gains[:, 1]).max() < 0.15


def test_image_and_tissue_are_widened_alike(block_head: Head) -> None:
    """What the tissue calls ventricle is as dark as the ventricle was."""
    assert block_head.image is not None
    lesion = ellipsoid(block_head.tissue.shape, (14, 55, 40), (14, 32, 24))
    image, tissue = widen_fluid_spaces(block_head.image, block_head.tissue, np.random.default_rng(2), lesion)
    core = ndimage.binary_erosion(tissue == Tissue.VENTRICLE)
    original = ndimage.binary_erosion(block_head.tissue == Tissue.VENTRICLE)
    assert core.sum() > 1.2 * original.sum()
    assert np.median(image[core]) == pytest.approx(np.median(block_head.image[original]), abs=0.06)
    assert set(np.unique(tissue)) <= set(np.unique(block_head.tissue))
    assert (image.shape, image.dtype) == (block_head.image.shape, np.float32)


def test_lacunes_are_small_dark_and_where_they_may_be(block_head: Head) -> None:
    assert block_head.image is not None
    image, tissue = block_head.image, block_head.tissue
    keep_off = np.zeros(tissue.shape, dtype=bool)
    keep_off[:MIDDLE] = True
    changed = add_lacunes(image, tissue, np.random.default_rng(0), keep_off, 12)
    different = np.abs(changed - image) > 1e-6
    assert (changed <= image + 1e-6).all()
    holes, found = ndimage.label(different)
    assert 8 <= found <= 12  # some may touch
    sizes = np.bincount(holes.ravel())[1:]
    assert 4 <= np.median(sizes) <= 130  # a ball of 6 mm has 113 voxels
    for centre in ndimage.center_of_mass(different, holes, range(1, found + 1)):
        assert centre[0] > MIDDLE - 1
    solid = (tissue == Tissue.GREY) | (tissue == Tissue.WHITE)
    assert solid[different].mean() > 0.97
    assert (changed[different] < 0.9 * image[different]).mean() > 0.5


def test_without_lacunes_or_room_for_them_nothing_changes(block_head: Head) -> None:
    assert block_head.image is not None
    nowhere = np.ones(block_head.tissue.shape, dtype=bool)
    for keep_off, count in ((~nowhere, 0), (nowhere, 5)):
        changed = add_lacunes(block_head.image, block_head.tissue, np.random.default_rng(0), keep_off, count)
        assert np.array_equal(changed, block_head.image)


def test_a_lacune_near_the_edge_of_the_volume_stays_in_it() -> None:
    """Solid tissue of 7 voxels has one place for a lacune, 3 voxels from every edge."""
    head = np.ones((7, 7, 7), dtype=np.float32)
    tissue = np.full(head.shape, Tissue.WHITE, dtype=np.uint8)
    changed = add_lacunes(head, tissue, np.random.default_rng(0), np.zeros(head.shape, dtype=bool), 3)
    assert changed[3, 3, 3] == pytest.approx(changed.min(), abs=1e-3)
    assert changed[3, 3, 3] < 0.7
    assert (changed[[0, 0, -1], [0, -1, 0], [0, 0, -1]] == 1).all()


def test_white_matter_is_greyer_near_the_ventricles_and_nothing_else_changes(block_head: Head) -> None:
    assert block_head.image is not None
    image, tissue = block_head.image, block_head.tissue
    distance = ndimage.distance_transform_edt(tissue != Tissue.VENTRICLE)
    white = tissue == Tissue.WHITE
    far_from_white = ndimage.distance_transform_edt(~white) > 4
    near, far = [], []
    for seed in range(8):
        changed = add_white_matter_changes(image, tissue, np.random.default_rng(seed))
        assert (changed <= image + 1e-6).all()
        assert (changed >= 0.65 * image - 1e-6).all()
        assert np.abs(changed - image)[far_from_white].max() < 0.01
        loss = 1 - changed[white] / image[white]
        near.append(loss[distance[white] < 4].mean())
        far.append(loss[distance[white] > 20].mean())
    assert np.mean(near) > 3 * np.mean(far)
    assert max(near) > 0.03


def test_sulci_are_wider_in_a_region_alone(template_head: Head) -> None:
    image, tissue = template_head.image, template_head.tissue
    assert image is not None
    keep_off = np.zeros(tissue.shape, dtype=bool)
    keep_off[:, :, 110:] = True
    gains_ml = []
    for seed in range(6):
        changed, changed_tissue = widen_sulci_regionally(image, tissue, np.random.default_rng(seed), keep_off)
        assert np.array_equal(changed[keep_off], image[keep_off])
        assert np.array_equal(changed_tissue[keep_off], tissue[keep_off])
        assert np.array_equal(changed_tissue < Tissue.CSF, tissue < Tissue.CSF)
        moved = np.argwhere(changed != image)
        gains_ml.append(((changed_tissue == Tissue.CSF).sum() - (tissue == Tissue.CSF).sum()) / 1000)
        if len(moved):  # a box of at most 80 mm, on one or both sides
            assert np.ptp(moved[:, 1:], axis=0).max() <= 80
        fluid = (changed_tissue == Tissue.CSF) & (tissue != Tissue.CSF)
        if fluid.sum() > 200:  # 0.45 parts fluid from grey matter in the tissues of a scan
            assert np.median(changed[fluid]) < 0.45 < np.median(image[fluid])
    assert min(gains_ml) >= 0
    assert 1 < max(gains_ml) < 40
