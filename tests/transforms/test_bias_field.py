"""A known bias field is removed, and a head without one does not change."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from bundle.mni import TEMPLATE, head_mask
from bundle.transforms import CorrectBiasField, CorrectBiasFieldd, VolumePreprocessing

pytestmark = pytest.mark.slow  # ITK takes seconds to load

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """The MNI template at 2 mm."""
    voxels: np.ndarray = nib.load(TEMPLATE).get_fdata(dtype=np.float32)[::2, ::2, ::2]
    return voxels


@pytest.fixture(scope="module")
def field(brain: np.ndarray) -> np.ndarray:
    """A smooth field that is half as bright again at one side as at the other."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, extent) for extent in brain.shape), indexing="ij")
    smooth: np.ndarray = np.exp(0.35 * x - 0.3 * y * z + 0.2 * z).astype(np.float32)
    return smooth


def corrected(voxels: np.ndarray) -> np.ndarray:
    result: np.ndarray = CorrectBiasField()(MetaTensor(torch.from_numpy(voxels)[None], affine=AFFINE))[0].numpy()
    return result


def test_a_known_field_is_removed(brain: np.ndarray, field: np.ndarray) -> None:
    inside = head_mask(brain) & (brain > np.percentile(brain, 60))
    left = np.log(corrected(brain * field)[inside] / corrected(brain)[inside])
    assert left.std() < 0.4 * np.log(field[inside]).std()


def test_air_stays_0_and_an_empty_volume_is_accepted(brain: np.ndarray, field: np.ndarray) -> None:
    result = corrected(np.where(head_mask(brain), brain * field, 0))
    assert (result[~head_mask(brain)] == 0).all()
    assert (result >= 0).all()
    assert (corrected(np.zeros((40, 40, 20), np.float32)) == 0).all()


def test_it_is_applied_to_the_image_before_the_registration(write_nifti: Callable, brain: np.ndarray) -> None:
    file = write_nifti("scan.nii", brain)
    steps = VolumePreprocessing("image", spacing_mm=2.0, bias_correction=True).transforms
    kinds = [type(step).__name__ for step in steps]
    assert kinds.index("CorrectBiasFieldd") == kinds.index("Orientationd") + 1
    first = {"image": MetaTensor(torch.from_numpy(brain)[None], affine=AFFINE), "label": torch.zeros(1)}
    assert CorrectBiasFieldd("image")(first)["label"] is first["label"]
    prepared = VolumePreprocessing("image", spacing_mm=2.0, bias_correction=True)({"image": str(file)})["image"]
    plain = VolumePreprocessing("image", spacing_mm=2.0)({"image": str(file)})["image"]
    assert prepared.shape == plain.shape
    assert not torch.equal(prepared.as_tensor(), plain.as_tensor())
