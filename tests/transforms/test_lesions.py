"""Small lesions leave a mask by their volume in mL, whatever the voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from bundle.transforms import RemoveSmallLesions, RemoveSmallLesionsd

AFFINE = np.array([[0, 0, 3.0, 5], [-1, 0, 0, 7], [0, 2, 0, 9], [0, 0, 0, 1]])
"""Voxels of 1 x 2 x 3 mm, 0.006 mL each."""


@pytest.fixture
def mask() -> np.ndarray:
    """One piece of 3 voxels, one of 2 that touch by a corner, one of 1: 0.018, 0.012 and 0.006 mL."""
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[1, 1, 1:4] = 1
    mask[5, 5, 5] = mask[6, 6, 6] = 1
    mask[1, 6, 6] = 1
    return mask


@pytest.mark.parametrize(
    ("smallest_lesion_ml", "voxels"), [(0.0, 6), (0.0059, 6), (0.0061, 5), (0.0121, 3), (0.0181, 0)]
)
def test_pieces_below_the_volume_go(smallest_lesion_ml: float, voxels: int, mask: np.ndarray) -> None:
    before = mask.copy()
    kept = RemoveSmallLesions(smallest_lesion_ml)(mask, AFFINE)
    assert kept.sum() == voxels
    assert kept.dtype == np.uint8
    assert np.all(kept <= mask)
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_in_a_dictionary_the_volume_is_that_of_the_image_s_own_voxels(dtype: torch.dtype, mask: np.ndarray) -> None:
    data = {"pred": MetaTensor(torch.from_numpy(mask)[None].to(dtype), affine=torch.from_numpy(AFFINE)), "case": "a"}
    kept = RemoveSmallLesionsd("pred", 0.0121)(data)
    assert kept["case"] == "a"
    assert kept["pred"].dtype == dtype
    assert kept["pred"].shape == (1, 8, 8, 8)
    assert isinstance(kept["pred"], MetaTensor)
    assert kept["pred"].nonzero().tolist() == [[0, 1, 1, 1], [0, 1, 1, 2], [0, 1, 1, 3]]
    assert kept["pred"].affine.tolist() == AFFINE.tolist()


def test_a_negative_volume_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smallest_lesion_ml must be 0 or more, got -0\.1\."):
        RemoveSmallLesions(-0.1)
