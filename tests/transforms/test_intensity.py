"""Head intensities: the mask of the head, and its median of 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage

from bundle.errors import InputError
from bundle.mni import head_mask
from bundle.transforms import NormalizeHeadIntensity, NormalizeHeadIntensityd
from bundle.transforms.intensity import AirToZero

CAVITY = (slice(50, 58), slice(48, 56), slice(58, 66))  # in the white matter of the synthetic head


@pytest.fixture
def noisy(head: np.ndarray) -> np.ndarray:
    """The head in noisy air, as magnitude images have it."""
    rng = np.random.default_rng(0)
    noisy: np.ndarray = np.hypot(head + rng.normal(0, 3, head.shape), rng.normal(0, 3, head.shape)).astype(np.float32)
    return noisy


def normalize(image: np.ndarray) -> np.ndarray:
    result: np.ndarray = NormalizeHeadIntensity()(torch.from_numpy(image)[None])[0].numpy()
    return result


def test_the_head_is_found_in_noisy_air(head: np.ndarray, noisy: np.ndarray) -> None:
    found, true = head_mask(noisy), ndimage.binary_fill_holes(head > 0)
    assert (true & ~found).sum() < 0.01 * true.sum()
    assert not (found & ~ndimage.binary_dilation(true, iterations=2)).any()


def test_the_median_of_the_head_becomes_1(head: np.ndarray, noisy: np.ndarray) -> None:
    result = normalize(noisy)
    assert np.median(result[head_mask(noisy)]) == pytest.approx(1, abs=1e-6)
    assert np.median(result[ndimage.binary_fill_holes(head > 0)]) == pytest.approx(1, abs=0.1)


def test_noisy_air_becomes_exactly_0(head: np.ndarray, noisy: np.ndarray) -> None:
    air = ~ndimage.binary_dilation(head > 0, iterations=2)
    assert noisy[air].min() > 0
    assert not normalize(noisy)[air].any()


def test_a_dark_cavity_inside_the_head_keeps_its_intensities(noisy: np.ndarray) -> None:
    noisy[CAVITY] = 0.5  # darker than most of the air
    assert head_mask(noisy)[CAVITY].all()
    result = normalize(noisy)[CAVITY]
    assert 0 < result.min() == result.max() < 0.02


def test_the_median_of_the_brain_becomes_1_where_it_is_known(even_head: np.ndarray, noisy: np.ndarray) -> None:
    brain = (even_head == 70) | (even_head == 110)
    result = NormalizeHeadIntensity(brain)(torch.from_numpy(noisy)[None])[0].numpy()
    assert np.median(result[brain]) == pytest.approx(1, abs=1e-6)
    without_neck = noisy.copy()
    without_neck[even_head == 60] = 0
    other = NormalizeHeadIntensityd("image", brain)({"image": torch.from_numpy(without_neck)[None]})["image"][0].numpy()
    np.testing.assert_allclose(other[brain], result[brain], rtol=1e-6)


def test_a_brain_of_another_shape_is_refused(noisy: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"brain is \(5, 5, 5\), the image \(88, 108, 100\)"):
        NormalizeHeadIntensity(np.ones((5, 5, 5), dtype=bool))(torch.from_numpy(noisy)[None])


@pytest.mark.parametrize("factor", [1 / 1024, 3.0, 4096.0])
def test_the_scanner_s_scale_does_not_matter(noisy: np.ndarray, factor: float) -> None:
    np.testing.assert_allclose(normalize(noisy * np.float32(factor)), normalize(noisy), rtol=1e-5)


def test_relative_intensities_in_the_head_are_kept(even_head: np.ndarray) -> None:
    result = normalize(even_head)
    assert result[55, 52, 58] / result[40, 52, 60] == pytest.approx(110 / 20)  # white matter to ventricle


def test_a_skull_stripped_brain_is_normalised_to_its_own_median(even_head: np.ndarray) -> None:
    brain = ndimage.binary_erosion(ndimage.binary_fill_holes(even_head == 70), iterations=1)
    stripped = even_head * brain
    result = normalize(stripped)
    assert result[55, 52, 58] == pytest.approx(1)  # most of it is white matter
    assert not result[~ndimage.binary_dilation(brain, iterations=2)].any()


def test_values_below_zero_become_0(head: np.ndarray) -> None:
    head[CAVITY] = -50
    result = normalize(head)
    assert result.min() == 0
    assert not result[CAVITY].any()


@pytest.mark.parametrize("image", [np.zeros((20, 20, 20)), np.full((20, 20, 20), 7.0), -np.ones((20, 20, 20))])
def test_an_image_without_head_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^The image shows no head: nothing is brighter than its background\.$"):
        NormalizeHeadIntensity()(image[None].astype(np.float32))


def test_the_refusal_names_the_file() -> None:
    image = MetaTensor(torch.zeros(1, 20, 20, 20), meta={"filename_or_obj": "scan.nii.gz"})
    with pytest.raises(InputError, match=r"^scan\.nii\.gz shows no head"):
        NormalizeHeadIntensity()(image)


def test_type_and_affine_stay_and_the_input_is_unchanged(head: np.ndarray) -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])).double()
    image = MetaTensor(torch.from_numpy(head.astype(np.int16))[None], affine=affine)
    before = image.clone()
    result = NormalizeHeadIntensity()(image)
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float32
    assert result.shape == image.shape
    assert torch.equal(result.affine, affine)
    assert torch.equal(image, before)
    array = NormalizeHeadIntensity()(head[None])
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32


def test_the_dictionary_version_changes_its_keys_only(head: np.ndarray) -> None:
    image = torch.from_numpy(head)[None]
    data = {"image": image, "label": image > 100}
    result = NormalizeHeadIntensityd("image")(data)
    assert torch.equal(result["image"], NormalizeHeadIntensity()(image))
    assert result["label"] is data["label"]
    assert data["image"] is image


def lifted(image: np.ndarray) -> np.ndarray:
    result: np.ndarray = AirToZero()(MetaTensor(torch.from_numpy(image.astype(np.float32))[None]))[0].numpy()
    return result


@pytest.mark.parametrize(
    "change",
    [
        lambda image: (image - image.mean()) / image.std(),
        lambda image: image / image.max() * 2 - 1,
        lambda image: image / image.max() - 0.5,
        lambda image: image + 1000,
        lambda image: 0.001 * image + 3,
        lambda image: image - 32768,
        lambda image: (image - np.median(image[image > 20])) / 50,
    ],
    ids=["z-scored", "-1..1", "-0.5..0.5", "offset", "unit range and offset", "int16 for uint16", "robust z-score"],
)
@pytest.mark.parametrize("air", ["noisy", "empty"])
def test_another_convention_of_intensity_gives_the_plain_image(
    change: Callable[[np.ndarray], np.ndarray], air: str, head: np.ndarray, noisy: np.ndarray
) -> None:
    plain = (noisy if air == "noisy" else head).astype(np.float64)
    inside = head_mask(plain)
    found, expected = normalize(lifted(change(plain))), normalize(plain.astype(np.float32))
    assert np.quantile(np.abs(found - expected)[inside], 0.999) < 0.06  # the noise of the air decides what is 0


@pytest.mark.parametrize("centre", [np.mean, np.median])
def test_tissue_that_is_standardised_inside_its_mask_stays_above_the_air(
    centre: Callable[[np.ndarray], float], head: np.ndarray
) -> None:
    inside = head > 0
    brain = np.where(inside, head + np.random.default_rng(0).normal(0, 1, head.shape), 0)
    standardised = np.where(inside, (brain - centre(brain[inside])) / brain[inside].std(), 0)
    found, expected = normalize(lifted(standardised)), normalize(brain.astype(np.float32))
    assert (found > 0)[expected > 0].mean() > 0.999
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.98


@pytest.mark.parametrize("padding", [-9999.0, -32768.0, -1e6])
def test_padding_far_below_all_others_is_air(padding: float, head: np.ndarray) -> None:
    padded = np.where(head > 0, head, padding)
    np.testing.assert_array_equal(lifted(padded), head.astype(np.float32))


@pytest.mark.parametrize("air", [1e-6, -1e-6, -10.0])
def test_the_air_about_standardised_tissue_need_not_be_exactly_0(air: float, head: np.ndarray) -> None:
    inside = head > 0
    standardised = (head - head[inside].mean()) / head[inside].std()
    expected = lifted(np.where(inside, standardised, 0))
    np.testing.assert_allclose(lifted(np.where(inside, standardised, air)), expected, atol=0.05)


def test_plain_images_and_their_noise_stay_as_they_are(head: np.ndarray, noisy: np.ndarray) -> None:
    ringing = noisy - 2  # as an interpolation leaves it
    for image in (head, noisy, ringing):
        np.testing.assert_array_equal(lifted(image), image.astype(np.float32))


@pytest.mark.parametrize("hot", [1e4, 1e8])
def test_a_hot_voxel_does_not_set_the_range(hot: float, noisy: np.ndarray) -> None:
    spoilt = noisy.copy()
    spoilt[40, 50, 60] = hot
    found = lifted(spoilt)
    assert found[40, 50, 60] < 2.1 * np.percentile(noisy, 99.9)
    others = np.arange(noisy.size) != np.ravel_multi_index((40, 50, 60), noisy.shape)
    np.testing.assert_array_equal(found.ravel()[others], noisy.ravel()[others])
