"""What is done to a scan: stripping, defacing, and the scanner's own traces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, Tissue
from bundle.data.simulate.acquisition import (
    acquire,
    acquire_varied,
    add_ghosts,
    deface,
    slice_thickly,
    strip_skull,
    strip_skull_loosely,
    strip_too_loosely,
    strip_too_tightly,
)

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


def test_thick_slices_are_means_over_their_thickness_and_straight_between_their_middles() -> None:
    """Slices of 3 mm at 1, 5, 9, ... with a gap of 1 mm, in a volume whose intensity is the square of the position."""
    ramp = np.broadcast_to(np.arange(22, dtype=np.float32) ** 2, (3, 4, 22))
    sliced = slice_thickly(ramp, axis=2, spacing_mm=4.0, thickness_mm=3.0, first_mm=1.0)
    assert sliced.shape == ramp.shape
    middles = np.array([1, 5, 9, 13, 17])
    means = middles**2 + 2 / 3  # of (m - 1)^2, m^2 and (m + 1)^2
    assert sliced[1, 2, middles] == pytest.approx(means, rel=1e-5)
    assert sliced[1, 2, 1:18] == pytest.approx(np.interp(np.arange(1, 18), middles, means), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_lose_the_detail_across_them_alone(axis: int) -> None:
    noise = np.random.default_rng(0).random((40, 44, 48)).astype(np.float32)
    sliced = slice_thickly(noise, axis, spacing_mm=5.0, thickness_mm=5.0)
    across = np.abs(np.fft.rfft(sliced - sliced.mean(), axis=axis)).mean(axis=tuple({0, 1, 2} - {axis}))
    nyquist = round(noise.shape[axis] / (2 * 5.0))  # of slices that are 5 mm apart
    assert across[2 * nyquist + 2 :].mean() < 0.25 * across[1:nyquist].mean()
    # Within a slice the neighbours are as unlike as they were.
    steps = np.diff(sliced, axis=(axis + 1) % 3).std() / sliced.std()
    assert steps == pytest.approx(np.diff(noise, axis=(axis + 1) % 3).std() / noise.std(), rel=0.05)


def test_a_ghost_is_a_copy_at_its_shift_and_what_k_space_lines_of_that_modulation_give() -> None:
    image = np.zeros((40, 60, 20), dtype=np.float32)
    image[18:22, 28:32, 8:12] = 1
    strength, shift, phase = 0.3, 17, 0.7
    ghosted = add_ghosts(image, 1, shift, strength, phase)
    assert ghosted[20, 30, 10] == pytest.approx(1)
    assert ghosted[20, 30 + shift, 10] == pytest.approx(strength / 2)
    assert ghosted[20, 30 - shift, 10] == pytest.approx(strength / 2)
    assert (ghosted > 1e-6).sum() == 3 * (image > 0).sum()
    lines = np.arange(60)[:, None]
    modulation = 1 + strength * np.cos(2 * np.pi * lines * shift / 60 + phase)
    expected = np.abs(np.fft.ifft(np.fft.fft(image, axis=1) * modulation, axis=1))
    assert ghosted == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def varied(block_head: Head) -> list[tuple[np.ndarray, list[str]]]:
    assert block_head.image is not None
    return [acquire_varied(block_head.image, np.random.default_rng(seed)) for seed in range(60)]


def test_varied_acquisitions_keep_the_head_and_have_every_trace(
    block_head: Head, varied: list[tuple[np.ndarray, list[str]]]
) -> None:
    assert block_head.image is not None
    white, grey = (block_head.tissue == kind for kind in (Tissue.WHITE, Tissue.GREY))
    for scan, _ in varied:
        assert scan.dtype == np.float32
        assert np.isfinite(scan).all()
        assert not scan[block_head.image == 0].any()
        assert 0.6 < np.median(scan[white]) < 1.5
        assert np.median(scan[grey]) < np.median(scan[white])
    names = [name for _, done in varied for name in done]
    shares = {name: names.count(name) / len(varied) for name in set(names)}
    assert set(shares) == {"thick slices", "low field", "ringing", "ghosts", "spikes"}
    assert 0.15 < shares["thick slices"] < 0.45
    assert max(share for name, share in shares.items() if name != "thick slices") < 0.3


def test_ringing_swings_beside_an_edge() -> None:
    """A block of one intensity has none; behind a sharp edge the truncated spectrum overshoots by some percent."""
    block = np.zeros((64, 64, 64), dtype=np.float32)
    block[16:48, 16:48, 16:48] = 1
    scans = [acquire_varied(block, np.random.default_rng(seed)) for seed in range(60)]
    ringing = [scan for scan, names in scans if names == ["ringing"]]
    plain = [scan for scan, names in scans if names == []]
    assert min(len(ringing), len(plain)) >= 3

    def swing(scan: np.ndarray) -> float:
        """Largest overshoot of the mean profiles behind the edges over the middle."""
        profiles = [scan.swapaxes(0, axis)[16:48, 24:40, 24:40].mean(axis=(1, 2)) for axis in range(3)]
        return max(float((profile[1:5] / profile[12:20].mean()).max()) for profile in profiles)

    assert np.median([swing(scan) for scan in ringing]) > np.median([swing(scan) for scan in plain]) + 0.02


def test_a_varied_scan_depends_on_the_random_state_alone(varied: list[tuple[np.ndarray, list[str]]]) -> None:
    head = np.random.default_rng(0).random((40, 42, 44)).astype(np.float32)
    for seed, (_, names) in enumerate(varied[:25]):
        first, again = (acquire_varied(head, np.random.default_rng(seed)) for _ in "ab")
        assert first[0].tobytes() == again[0].tobytes()
        assert first[1] == again[1] == names


def test_tight_stripping_takes_cortex_and_never_the_middle(whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, tissue, solid = whole
    deep = ndimage.distance_transform_edt(ndimage.binary_closing(tissue >= Tissue.CSF, iterations=3)) > 20
    outside_mm = ndimage.distance_transform_edt(tissue < Tissue.CSF)
    lost_ml = []
    for seed in SEEDS:
        stripped = strip_too_tightly(image, tissue, np.random.default_rng(seed))
        assert np.array_equal(stripped[deep], image[deep])
        # Of what is not brain only cisterns in its middle are left, a few mL.
        kept = (stripped > 0) & (tissue < Tissue.CSF)
        assert kept.sum() < 5000
        assert outside_mm[kept].max(initial=0) < 8
        lost = solid & (stripped == 0) & (image > 0)
        assert (tissue[lost] == Tissue.GREY).mean() > 0.6
        lost_ml.append(lost.sum() / 1000)
    assert 20 < min(lost_ml) < max(lost_ml) < 350


def test_loose_stripping_keeps_the_brain_and_up_to_8_mm_around_it(
    whole: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    image, tissue, _ = whole
    brain = tissue >= Tissue.CSF
    outside_mm = ndimage.distance_transform_edt(~ndimage.binary_closing(brain, iterations=8))
    eyes = np.zeros(image.shape, dtype=bool)
    eyes[:, 170:, :70] = True
    kept_eyes = []
    for seed in range(6):
        stripped = strip_too_loosely(image, tissue, np.random.default_rng(seed))
        assert np.array_equal(stripped[brain], image[brain])
        around = (stripped > 0) & ~brain
        assert 60 < around.sum() / 1000 < 700
        assert outside_mm[around & ~eyes].max() < 11
        kept_eyes.append(bool((stripped > 0)[(outside_mm > 11) & eyes].any()))
    assert len(set(kept_eyes)) == 2


def test_stripping_is_tight_loose_or_as_before_each_in_a_share(block_head: Head) -> None:
    assert block_head.image is not None
    # Every second voxel: what is asked here is which way was taken.
    image, tissue = (volume[::2, ::2, ::2].copy() for volume in (block_head.image, block_head.tissue))
    kinds = []
    for seed in range(60):
        stripped = strip_skull_loosely(image, tissue, np.random.default_rng(seed))
        again = strip_skull_loosely(image, tissue, np.random.default_rng(seed))
        assert stripped.tobytes() == again.tobytes()
        ways = {"tight": strip_too_tightly, "loose": strip_too_loosely, "good": strip_skull}
        for kind, strip in ways.items():
            rng = np.random.default_rng(seed)
            rng.random()  # the kind
            if np.array_equal(stripped, strip(image, tissue, rng)):
                kinds.append(kind)
                break
    assert len(kinds) == 60
    # A quarter, a quarter and a half: two standard deviations are 7 and 8 of 60.
    assert 8 <= kinds.count("tight") <= 22
    assert 8 <= kinds.count("loose") <= 22
    assert 22 <= kinds.count("good") <= 38
