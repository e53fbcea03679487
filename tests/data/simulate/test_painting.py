"""How dark a painted lesion is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate.painting import paint_lesion
from tests.conftest import ellipsoid

PROFILE = {(0, 1): 0.49, (1, 2): 0.43, (2, 3): 0.38, (3, 5): 0.33, (5, 8): 0.27}
"""Intensity relative to the white matter by depth in mm, as measured in a real chronic lesion."""

LESION = ellipsoid((56, 56, 56), (28, 28, 28), (19, 18, 17))
"""24 mL: over what may be scarred only."""

EVERYWHERE = np.ones_like(LESION)


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    """Mean intensity in each layer of the profile, of a lesion painted into white matter with 40 seeds."""
    depth = ndimage.distance_transform_edt(LESION)
    layers = [(depth > first) & (depth <= last) for first, last in PROFILE]
    white = np.ones(LESION.shape, dtype=np.float32)
    painted = (paint_lesion(white, LESION, EVERYWHERE, np.random.default_rng(seed)) for seed in range(40))
    return np.array([[image[layer].mean() for layer in layers] for image in painted])


def test_the_darkness_follows_the_profile_of_a_real_lesion(levels: np.ndarray) -> None:
    """Within 0.06 of the white matter on average; 0.18 at the rim, whose voxels are mixed with tissue."""
    for (span, expected), mean in zip(PROFILE.items(), levels.mean(axis=0), strict=True):
        assert mean == pytest.approx(expected, abs=0.18 if span == (0, 1) else 0.06), span


def test_every_lesion_is_darker_in_its_core_than_at_its_rim(levels: np.ndarray) -> None:
    assert (np.diff(levels, axis=1) < 0.01).all()
    assert (levels[:, -1] < 0.8 * levels[:, 0]).all()


def test_lesions_differ_from_seed_to_seed(levels: np.ndarray) -> None:
    assert (levels.std(axis=0) > 0.02).all()


def test_the_head_is_not_changed_and_nothing_is_beyond_4_mm_from_the_lesion() -> None:
    head = np.random.default_rng(0).uniform(0.5, 1.0, LESION.shape).astype(np.float32)
    before = head.copy()
    painted = paint_lesion(head, LESION, EVERYWHERE, np.random.default_rng(1))
    assert np.array_equal(head, before)
    far = ndimage.distance_transform_edt(~LESION) > 4 * np.sqrt(3)
    assert np.array_equal(painted[far], before[far])
    assert (painted <= before + 1e-6).all()  # nothing is made brighter
    assert (painted[LESION] < before[LESION] - 0.05).mean() > 0.9


def test_towards_a_sulcus_a_lesion_has_no_rim() -> None:
    """The half of the lesion that looks at fluid is as dark at its border as it is inside."""
    brain = EVERYWHERE.copy()
    brain[:28] = False
    border = LESION & (ndimage.distance_transform_edt(LESION) <= 1.5)
    head = np.ones(LESION.shape, np.float32)
    mean = np.mean([paint_lesion(head, LESION, brain, np.random.default_rng(seed)) for seed in range(10)], axis=0)
    assert mean[:20][border[:20]].mean() < mean[36:][border[36:]].mean() - 0.1


def test_a_small_lesion_is_sometimes_a_scar_through_which_the_anatomy_shows() -> None:
    """8 of 100: then bright and dark tissue stay as 1 to 0.6, where a hollow one is as dark in both."""
    small = ellipsoid((30, 30, 30), (15, 15, 15), (7, 7, 7))
    head = np.ones(small.shape, dtype=np.float32)
    head[15:] = 0.6
    core = ellipsoid((30, 30, 30), (15, 15, 15), (3, 3, 3))
    ratios = []
    for seed in range(150):
        image = paint_lesion(head, small, np.ones_like(small), np.random.default_rng(seed))
        ratios.append(image[:15][core[:15]].mean() / image[15:][core[15:]].mean())
    scars = sum(ratio > 1.4 for ratio in ratios)
    assert 4 <= scars <= 24
    assert np.median(ratios) < 1.2


def test_a_lesion_at_the_edge_of_the_volume_is_painted() -> None:
    corner = np.zeros((20, 20, 20), dtype=bool)
    corner[:6, :6, :6] = True
    painted = paint_lesion(np.ones(corner.shape, np.float32), corner, np.ones_like(corner), np.random.default_rng(0))
    assert painted[corner].mean() < 0.8
    assert (painted[12:] == 1).all()
