"""What is lesion in a label, connected components of a mask, and the removal of those below a volume in mL."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.checks import CheckLabeld
from bundle.data import check_datalist
from bundle.data.cohorts import Case, prepare_label
from bundle.data.simulate import LesionMasks
from bundle.errors import InputError
from bundle.lesions import bounding_box, components, lesion_voxels, remove_small_components

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


LABELS = {
    "soft": np.linspace(0, 1, 64), "negative": np.r_[-1.0, np.ones(63)], "NaN": np.r_[np.nan, np.ones(63)],
    "infinite": np.r_[np.inf, np.zeros(63)], "half": np.full(64, 0.5), "probability": np.r_[0.999 - 0.2, np.zeros(63)],
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_label_that_is_no_mask_is_refused_alike_by_every_user(kind: str, dtype: type, tmp_path: Path) -> None:
    """Training and evaluation (the datalist, and the transform for labels in memory), preparation, simulation."""
    label = LABELS[kind].astype(dtype).reshape(4, 4, 4)
    affine = np.diag([2.0, 2, 2, 1])
    for name, voxels in (("t1.nii", np.arange(64, dtype=np.int16).reshape(4, 4, 4)), ("mask.nii", label)):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / name)
    image, mask = tmp_path / "t1.nii", tmp_path / "mask.nii"
    ways = {
        "datalist": lambda: check_datalist([{"image": str(image), "label": str(mask)}]),
        "transform": lambda: CheckLabeld("label")({"label": torch.from_numpy(label)}),
        "preparation": lambda: prepare_label(Case("a", "a", image, (mask,)), tmp_path / "labels"),
        "simulation": lambda: LesionMasks([str(mask)], progress=False),
    }
    for way, read in ways.items():
        with pytest.raises(InputError, match=r"has \d+ voxels such as \S+: a mask of 0 and 1 is expected; threshold a"):
            read()
            pytest.fail(way)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0, 254.9999), (0.0002, 0.9998), (0, 3)])
def test_a_mask_of_two_values_is_taken_without_a_word(values: tuple, caplog: pytest.LogCaptureFixture) -> None:
    label = np.array([values] * 4, dtype=np.float32)
    assert np.array_equal(lesion_voxels(label, "mask.nii"), label > 0.5)
    assert not caplog.records


def test_several_values_of_a_label_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        assert lesion_voxels(np.array([0, 1, 2, 4, 4]), "mask.nii").sum() == 4
    assert caplog.messages == ["mask.nii has the values 1, 2, 4 besides 0: all of them are taken for lesion."]


def test_an_image_and_an_inverted_mask_are_no_label() -> None:
    image = np.arange(1000).reshape(10, 10, 10)
    with pytest.raises(InputError, match=r"t1\.nii has 999 values besides 0: it is an image or an atlas, a mask is"):
        lesion_voxels(image, "t1.nii")
    inverted = np.ones((10, 10, 10), dtype=np.uint8)
    inverted[:2, :5, :5] = 0
    with pytest.raises(InputError, match=r"mask\.nii is lesion in 95% of its voxels: it is inverted"):
        lesion_voxels(inverted, "mask.nii")
    assert lesion_voxels(1 - inverted, "mask.nii").sum() == 50
