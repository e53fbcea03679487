"""From logits to the mask on the source's grid: what is outside of the head and what is small does not count."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from bundle.transforms import LogitsToMask, LogitsToMaskd, VolumePreprocessing

WriteNifti = Callable[..., Path]
CUBE, CRUMB = np.s_[24:30, 50:56, 60:66], np.s_[50:52, 40:42, 70:72]
"""Inside the synthetic head of 2 mm voxels: 216 voxels, 1.728 mL, and 8 voxels, 0.064 mL."""


@pytest.fixture
def preprocessing() -> VolumePreprocessing:
    """To 2 mm voxels, the source's own: the way back moves nothing."""
    return VolumePreprocessing("image", spacing_mm=2.0, slice_size=96)


@pytest.fixture
def file(write_nifti: WriteNifti, head: np.ndarray) -> Path:
    """The head, brighter in cube and crumb, with its axes pointing left, up and to the back."""
    head[CUBE] = head[CRUMB] = 250
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    turned = nib.Nifti1Image(head, affine).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(("L", "S", "P"))
        )
    )
    return write_nifti("t1.nii.gz", np.asarray(turned.dataobj), turned.affine)


def bright(image: torch.Tensor, elsewhere: float = -10.0) -> torch.Tensor:
    """Logits of 3, a probability of 0.9526, where the image is brighter than any tissue."""
    return torch.where(image.as_subclass(torch.Tensor) > 2, 3.0, elsewhere)


def in_ras(tensor: MetaTensor) -> np.ndarray:
    image = nib.Nifti1Image(tensor[0].numpy(), tensor.affine.numpy())
    return np.asarray(nib.as_closest_canonical(image).dataobj)


def test_mask_and_probability_are_those_of_the_logits_on_the_source_s_grid(
    preprocessing: VolumePreprocessing, file: Path
) -> None:
    image = preprocessing({"image": str(file)})["image"]
    mask, probability = LogitsToMask(preprocessing, 0.95, 0.0)(bright(image), image)
    source = nib.load(file)
    assert mask.shape == probability.shape == (1, *source.shape)
    np.testing.assert_allclose(mask.affine.numpy(), source.affine)
    assert (mask.dtype, probability.dtype) == (torch.uint8, torch.float32)
    expected = np.zeros((88, 108, 100), dtype=np.uint8)
    expected[CUBE] = expected[CRUMB] = 1
    np.testing.assert_array_equal(in_ras(mask), expected)
    np.testing.assert_allclose(in_ras(probability)[CUBE], 1 / (1 + np.exp(-3)), atol=1e-5)


@pytest.mark.parametrize(("smallest_ml", "voxels"), [(0.0, 224), (0.0639, 224), (0.0641, 216), (1.729, 0)])
def test_components_below_the_smallest_are_left_out_of_the_mask_alone(
    smallest_ml: float, voxels: int, preprocessing: VolumePreprocessing, file: Path
) -> None:
    image = preprocessing({"image": str(file)})["image"]
    mask, probability = LogitsToMask(preprocessing, 0.5, smallest_ml)(bright(image), image)
    assert int(mask.sum()) == voxels
    assert int((probability > 0.5).sum()) == 224


def test_a_threshold_above_the_probability_gives_an_empty_mask(preprocessing: VolumePreprocessing, file: Path) -> None:
    image = preprocessing({"image": str(file)})["image"]
    assert not LogitsToMask(preprocessing, 0.96)(bright(image), image).mask.any()


def test_a_network_that_fires_everywhere_finds_nothing_in_the_air(
    preprocessing: VolumePreprocessing, file: Path, head: np.ndarray
) -> None:
    image = preprocessing({"image": str(file)})["image"]
    mask, probability = LogitsToMask(preprocessing, 0.5)(bright(image, 5.0), image)
    found, likely = in_ras(mask), in_ras(probability)
    assert found[30:50, 40:60, 50:70].all()
    assert not found[:3].any()
    assert found.sum() < 1.1 * np.count_nonzero(head)
    assert likely[:3].max() == 0


def test_the_same_image_can_be_taken_back_twice(preprocessing: VolumePreprocessing, file: Path) -> None:
    image = preprocessing({"image": str(file)})["image"]
    to_mask = LogitsToMask(preprocessing, 0.5)
    first, second = to_mask(bright(image), image), to_mask(bright(image), image)
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.probability, second.probability)


def test_in_a_dictionary_the_mask_takes_the_place_of_the_logits(preprocessing: VolumePreprocessing, file: Path) -> None:
    image = preprocessing({"image": str(file)})["image"]
    expected = LogitsToMask(preprocessing, 0.5, 0.07)(bright(image), image)
    data = LogitsToMaskd("pred", preprocessing, 0.5, 0.07)({"image": image, "pred": bright(image), "case": "a"})
    assert data["case"] == "a"
    assert torch.equal(data["pred"], expected.mask)
    assert torch.equal(data["probability"], expected.probability)
    assert data["pred"].meta["filename_or_obj"] == str(file)  # SaveImaged names the mask by it


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 1.5}, r"threshold must be a probability, 0 to 1, got 1\.5\."),
        ({"smallest_lesion_ml": -0.1}, r"smallest_lesion_ml must be 0 or more and finite, got -0\.1\."),
        ({"smallest_lesion_ml": math.inf}, r"smallest_lesion_ml must be 0 or more and finite, got inf\."),
    ],
)
def test_numbers_out_of_their_range_are_refused(
    options: dict[str, float], sentence: str, preprocessing: VolumePreprocessing
) -> None:
    with pytest.raises(ValueError, match=sentence):
        LogitsToMask(preprocessing, **options)
