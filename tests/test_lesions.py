"""Connected components of a mask, and the removal of those below a volume in mL."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.lesions import bounding_box, components, remove_small_components

AFFINE = np.array([[0, 0, 3.0, 5], [-1, 0, 0, 7], [0, 2, 0, 9], [0, 0, 0, 1]])
"""Voxels of 1 x 2 x 3 mm, 0.006 mL each."""


@pytest.fixture
def mask() -> np.ndarray:
    """One component of 3 voxels, one of 2 that touch by a corner, one of 1: 0.018, 0.012 and 0.006 mL."""
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[1, 1, 1:4] = 1
    mask[5, 5, 5] = mask[6, 6, 6] = 1
    mask[1, 6, 6] = 1
    return mask


@pytest.mark.parametrize(
    ("smallest_lesion_ml", "voxels"), [(0.0, 6), (0.0059, 6), (0.0061, 5), (0.0121, 3), (0.0181, 0)]
)
def test_components_below_the_volume_are_removed(smallest_lesion_ml: float, voxels: int, mask: np.ndarray) -> None:
    before = mask.copy()
    kept = remove_small_components(mask, AFFINE, smallest_lesion_ml)
    assert kept.sum() == voxels
    assert kept.dtype == np.uint8
    assert np.all(kept <= mask)
    np.testing.assert_array_equal(mask, before)


def test_voxels_that_touch_by_a_corner_are_one_component(mask: np.ndarray) -> None:
    labels, count = components(mask)
    assert count == 3
    assert labels[5, 5, 5] == labels[6, 6, 6] != 0
    assert sorted(np.bincount(labels.ravel())[1:]) == [1, 2, 3]


def test_the_bounding_box_fits_the_mask(mask: np.ndarray) -> None:
    assert bounding_box(mask > 0) == np.s_[1:7, 1:7, 1:7]
    assert mask[bounding_box(mask > 5)].size == 0
