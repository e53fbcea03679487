"""Smooth noise and warps, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.data.simulate.fields import smooth_noise, upsample, warp


def correlation(noise: np.ndarray, lag: int) -> float:
    """Of the voxels with those ``lag`` voxels on along the first axis."""
    return float(np.corrcoef(noise[:-lag].ravel(), noise[lag:].ravel())[0, 1])


@pytest.mark.parametrize("scale", [2.0, 6.0, 14.0])
def test_smooth_noise_is_standard_and_alike_over_its_scale_only(scale: float) -> None:
    noise = smooth_noise(np.random.default_rng(0), (60, 64, 68), scale)
    assert (noise.shape, noise.dtype) == ((60, 64, 68), np.float32)
    assert float(noise.mean()) == pytest.approx(0, abs=1e-4)
    assert float(noise.std()) == pytest.approx(1, abs=1e-3)
    assert correlation(noise, round(scale / 2)) > 0.6
    assert abs(correlation(noise, round(2 * scale))) < 0.2


def test_smooth_noise_depends_on_the_random_state_alone() -> None:
    first, again, other = (smooth_noise(np.random.default_rng(seed), (12, 13, 14), 3.0) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


def test_upsampling_keeps_corners_and_is_linear_between_them() -> None:
    corners = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    finer = upsample(corners, (3, 5, 2))
    assert finer[0, 0, 0] == 0
    assert finer[-1, -1, -1] == 7
    np.testing.assert_allclose(finer[:, 0, 0], [0, 2, 4], atol=1e-6)  # along the first axis from 0 to 4
    np.testing.assert_allclose(finer[0, :, 0], [0, 0.5, 1, 1.5, 2], atol=1e-6)
    assert upsample(np.stack([corners, -corners, corners]), (3, 5, 2)).shape == (3, 3, 5, 2)


def constant(shift: tuple[float, float, float], shape: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.asarray(shift, np.float32).reshape(3, 1, 1, 1), (3, *shape)).copy()


def test_a_warp_by_whole_voxels_shifts_exactly() -> None:
    volume = np.random.default_rng(0).random((12, 14, 16), dtype=np.float32)
    shifted = warp(volume, constant((2, -1, 3), volume.shape))
    np.testing.assert_allclose(shifted[:-2, 1:, :-3], volume[2:, :-1, 3:], atol=1e-5)
    np.testing.assert_allclose(shifted[-1, 1:, :-3], volume[-1, :-1, 3:], atol=1e-5)  # the edge, repeated


def test_a_warp_by_half_a_voxel_is_the_mean_of_two() -> None:
    volume = np.random.default_rng(0).random((12, 14, 16), dtype=np.float32)
    shifted = warp(volume, constant((0, 0.5, 0), volume.shape))
    np.testing.assert_allclose(shifted[:, :-1], (volume[:, :-1] + volume[:, 1:]) / 2, atol=1e-5)


def test_labels_are_warped_to_the_nearest_voxel() -> None:
    labels = np.random.default_rng(0).integers(0, 6, (12, 14, 16)).astype(np.uint8)
    shifted = warp(labels, constant((0.4, 1.6, 0), labels.shape), nearest=True)
    assert shifted.dtype == np.uint8
    assert np.array_equal(shifted[:, :-2], labels[:, 2:])


def test_only_what_is_displaced_moves() -> None:
    volume = np.random.default_rng(0).random((12, 14, 16), dtype=np.float32)
    displacement = constant((0, 0, 0), volume.shape)
    displacement[0, 5, 5, 5] = 1
    changed = warp(volume, displacement)
    assert changed[5, 5, 5] == pytest.approx(volume[6, 5, 5], abs=1e-5)
    changed[5, 5, 5] = volume[5, 5, 5]
    np.testing.assert_allclose(changed, volume, atol=1e-5)
