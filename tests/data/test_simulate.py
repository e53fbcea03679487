"""Simulated lesions: their volume, place and darkness; and the brain that they are put into."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage

from bundle.data.brain import TEMPLATE, brain_mask
from bundle.data.simulate import draw_lesion, draw_volume_ml, simulate_lesions, white_matter_mode
from bundle.transforms import VolumePreprocessing

PROFILE = {(0, 1): 0.49, (1, 2): 0.43, (2, 3): 0.38, (3, 5): 0.33, (5, 8): 0.27}
"""Intensity relative to the white matter by depth in mm, as measured in a real chronic lesion."""


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


@pytest.fixture(scope="module")
def template() -> np.ndarray:
    """The MNI template at 1 mm, prepared."""
    return VolumePreprocessing(keys="image")({"image": str(TEMPLATE)})["image"][0].numpy()


@pytest.fixture(scope="module")
def block(template: np.ndarray) -> np.ndarray:
    """A part of it, 90 x 110 x 80 mm with the ventricles in it, so that the tests are quick."""
    return template[60:150, 70:180, 60:140]


@pytest.fixture(scope="module")
def cases(block: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of 20 mL in each of eight simulations."""
    return [simulate_lesions(block, np.random.default_rng(seed), volume_ml=20.0) for seed in range(8)]


def test_a_seed_gives_the_same_case_and_another_seed_another(
    block: np.ndarray, cases: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    image, lesion = simulate_lesions(block, np.random.default_rng(0), volume_ml=20.0)
    assert image.tobytes() == cases[0][0].tobytes()
    assert lesion.tobytes() == cases[0][1].tobytes()
    assert not np.array_equal(lesion, cases[1][1])
    assert not np.array_equal(image, cases[1][0])


def test_image_and_mask_have_the_heads_shape_and_the_head_is_not_changed(block: np.ndarray) -> None:
    head = block.copy()
    image, lesion = simulate_lesions(head, np.random.default_rng(3), volume_ml=5.0)
    assert (image.shape, image.dtype) == (head.shape, np.float32)
    assert (lesion.shape, lesion.dtype) == (head.shape, np.uint8)
    assert set(np.unique(lesion)) == {0, 1}
    assert np.array_equal(head, block)


@pytest.mark.parametrize("volume_ml", [0.1, 1.0, 10.0, 60.0])
def test_a_drawn_lesion_has_the_volume_asked_for(volume_ml: float, block: np.ndarray) -> None:
    """Exactly, but for the crumbs that are taken away."""
    drawn = [draw_lesion(block > 0, volume_ml, np.random.default_rng(seed)).sum() / 1000 for seed in range(4)]
    assert max(drawn) <= volume_ml
    assert min(drawn) >= 0.9 * volume_ml


def test_lesions_together_have_the_volume_asked_for(cases: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Where two of them overlap it is less."""
    volumes_ml = [lesion.sum() / 1000 for _, lesion in cases]
    assert max(volumes_ml) <= 20.1
    assert np.median(volumes_ml) >= 19
    assert min(volumes_ml) >= 12


def test_drawn_volumes_follow_atlas() -> None:
    """Quartiles 1.0, 4.3 and 31.9 mL."""
    rng = np.random.default_rng(0)
    quartiles = np.percentile([draw_volume_ml(rng) for _ in range(4000)], (25, 50, 75))
    np.testing.assert_allclose(quartiles, (1.0, 4.3, 31.9), rtol=0.15)


def test_lesions_are_in_brain_tissue_and_not_in_the_ventricles(
    block: np.ndarray, cases: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    mode = white_matter_mode(block, block > 0)
    ventricles = ndimage.binary_erosion(block < 0.4 * mode, iterations=2)
    assert ventricles.sum() > 1000
    for _, lesion in cases:
        assert not (lesion.astype(bool) & (block <= 0)).any()
        assert not (lesion.astype(bool) & ventricles).any()


def test_a_given_brain_mask_bounds_the_lesions(block: np.ndarray) -> None:
    half = block > 0
    half[45:] = False
    _, lesion = simulate_lesions(block, np.random.default_rng(0), brain=half, volume_ml=10.0)
    assert lesion[:45].any()
    assert not lesion[45:].any()


def test_nothing_changes_beyond_2_mm_from_the_lesion_along_any_axis(
    block: np.ndarray, cases: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    for image, lesion in cases:
        near = ndimage.binary_dilation(lesion, structure=np.ones((5, 5, 5)))
        np.testing.assert_allclose(image[~near], block[~near], rtol=1e-6)
        assert (np.abs(image - block)[lesion == 1] > 0.05).mean() > 0.8


def test_the_darkness_follows_the_profile_of_a_real_lesion(
    block: np.ndarray, cases: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Within 0.08 of the white matter over eight cases; 0.2 at the rim, where the voxels are mixed with tissue."""
    mode = white_matter_mode(block, block > 0)
    voxels = [
        (ndimage.distance_transform_edt(lesion)[lesion == 1], image[lesion == 1] / mode) for image, lesion in cases
    ]
    depth, level = (np.concatenate(part) for part in zip(*voxels, strict=True))
    means = {span: float(level[(depth > span[0]) & (depth <= span[1])].mean()) for span in PROFILE}
    for span, expected in PROFILE.items():
        assert means[span] == pytest.approx(expected, abs=0.2 if span == (0, 1) else 0.08), span
    assert list(means.values()) == sorted(means.values(), reverse=True)


def test_the_white_matter_mode_is_the_value_of_white_matter() -> None:
    values = np.repeat([0.3, 0.7, 1.0], [2000, 4000, 6000]) + np.random.default_rng(0).normal(0, 0.03, 12000)
    assert white_matter_mode(values, np.ones(12000, dtype=bool)) == pytest.approx(1.0, abs=0.03)


def test_the_brain_of_a_stripped_head_is_all_of_it(template: np.ndarray) -> None:
    assert dice(brain_mask(template), template > 0) > 0.97


def test_the_brain_of_a_whole_head_is_found(shared_data: Path, template: np.ndarray) -> None:
    """Colin27 is in the template's space, so that the template's own outline tells where its brain is."""
    image = VolumePreprocessing(keys="image")({"image": str(shared_data / "t1_healthy" / "colin27_ch2.nii.gz")})[
        "image"
    ]
    found = brain_mask(image[0].numpy())
    original = nib.load(TEMPLATE)
    outline = nib.Nifti1Image((original.get_fdata() > 0).astype(np.uint8), original.affine)
    expected = resample_from_to(outline, (found.shape, image.affine.numpy()), order=0).get_fdata() > 0
    assert dice(found, ndimage.binary_fill_holes(expected)) > 0.9
    assert found.mean() < 0.6 * (image[0].numpy() > 0).mean()  # and not the whole head
