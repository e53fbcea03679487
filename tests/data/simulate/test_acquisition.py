"""What is done to a scan: stripping, defacing, and the scanner's own traces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, Tissue
from bundle.data.simulate.acquisition import acquire, deface, strip_skull

SEEDS = range(3)


@pytest.fixture(scope="module")
def whole(whole_head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, tissue and solid brain of a head with face and neck."""
    assert whole_head.image is not None
    solid = (whole_head.tissue == Tissue.GREY) | (whole_head.tissue == Tissue.WHITE)
    return whole_head.image, whole_head.tissue, solid


def test_defacing_takes_the_face_and_leaves_the_brain(whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, tissue, _ = whole
    brain = tissue >= Tissue.CSF
    front_mm, bottom_mm = (np.flatnonzero(brain.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    face = np.zeros(image.shape, dtype=bool)
    face[:, front_mm[-1] - 10 :, : bottom_mm[0] + 20] = True
    back = np.zeros(image.shape, dtype=bool)
    back[:, : int(np.mean(front_mm))] = True
    assert (image[face] > 0).sum() > 20_000
    for seed in SEEDS:
        defaced = deface(image, tissue, np.random.default_rng(seed))
        assert np.array_equal(defaced[brain], image[brain])
        assert np.array_equal(defaced[back], image[back])
        assert (defaced[face] > 0).sum() < 0.1 * (image[face] > 0).sum()
        assert np.isin(defaced[defaced != image], 0).all()


def test_stripping_leaves_the_brain_and_little_around_it(whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, tissue, solid = whole
    beyond = ndimage.distance_transform_edt(tissue < Tissue.CSF) > 8
    assert (image[beyond] > 0).sum() > 1_000_000
    sizes = []
    for seed in SEEDS:
        stripped = strip_skull(image, tissue, np.random.default_rng(seed))
        assert (stripped[solid] == image[solid]).mean() > 0.995
        assert not stripped[beyond].any()
        assert np.isin(stripped[stripped != image], 0).all()
        sizes.append(int((stripped > 0).sum()))
    assert len(set(sizes)) == len(sizes)  # some tools leave more than others


def test_an_acquisition_keeps_what_is_outside_and_about_the_contrast(block_head: Head) -> None:
    image = block_head.image
    assert image is not None
    white, grey = (block_head.tissue == kind for kind in (Tissue.WHITE, Tissue.GREY))
    scans = [acquire(image, np.random.default_rng(seed)) for seed in range(6)]
    for scan in scans:
        assert scan.dtype == np.float32
        assert np.array_equal(scan > 0, image > 0)
        assert 0.85 < np.median(scan[white]) < 1.15
        assert np.median(scan[grey]) < 0.92 * np.median(scan[white])
    # Noise and blurring differ, and so does the contrast.
    ratios = [float(np.median(scan[grey]) / np.median(scan[white])) for scan in scans]
    assert max(ratios) - min(ratios) > 0.03


def test_the_bias_field_is_smooth_and_at_most_some_tens_of_percent() -> None:
    """A head of one intensity shows nothing but the field and the noise."""
    for seed in range(4):
        scan = acquire(np.ones((80, 80, 80), np.float32), np.random.default_rng(seed))
        smooth = ndimage.uniform_filter(scan, 11)[10:-10, 10:-10, 10:-10]
        assert 0.6 < smooth.min() < smooth.max() < 1.6
        assert np.abs(np.diff(smooth, axis=0)).max() < 0.03


def test_a_scan_depends_on_the_random_state_alone(block_head: Head) -> None:
    assert block_head.image is not None
    part = block_head.image[:40, :40, :40]
    first, again, other = (acquire(part, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)
