"""Smooth random fields and the warps made of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["smooth_noise", "upsample", "warp", "warp_pair"]


def upsample(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Trilinear, corner voxels on corner voxels.

    Args:
        field: ``(H, W, D)`` or ``(C, H, W, D)``.
        shape: H, W, D of the result.
    """
    batch = torch.from_numpy(np.ascontiguousarray(field, dtype=np.float32)).reshape(1, -1, *field.shape[-3:])
    finer: np.ndarray = F.interpolate(batch, size=shape, mode="trilinear", align_corners=True)[0].numpy()
    return finer.reshape(*field.shape[:-3], *shape)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Noise of mean 0 and standard deviation 1 whose neighbours are alike over ``scale`` voxels.

    Args:
        rng: source of randomness.
        shape: H, W, D.
        scale: distance in voxels between independent values.
    """
    coarse = tuple(max(round(extent / scale), 1) + 1 for extent in shape)
    noise = upsample(rng.standard_normal(coarse, dtype=np.float32), shape)
    normal: np.ndarray = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    return normal


def _sampling_grid(displacement: np.ndarray) -> torch.Tensor:
    """Where ``grid_sample`` looks for each voxel: the last axis first, -1 to 1 from corner voxel to corner voxel."""
    shape = displacement.shape[1:]
    moved = torch.from_numpy(displacement)
    grid = torch.empty(*shape, 3)
    for axis, extent in enumerate(shape):
        line = torch.linspace(-1, 1, extent).reshape([-1 if a == axis else 1 for a in range(3)])
        grid[..., 2 - axis] = moved[axis] * (2 / max(extent - 1, 1)) + line
    return grid[None]


def _sampled(volume: np.ndarray, grid: torch.Tensor, nearest: bool) -> np.ndarray:
    source = torch.from_numpy(volume.astype(np.float32))[None, None]
    mode = "nearest" if nearest else "bilinear"
    sampled = F.grid_sample(source, grid, mode=mode, padding_mode="border", align_corners=True)
    return sampled[0, 0].numpy().astype(volume.dtype)


def warp(volume: np.ndarray, displacement: np.ndarray, nearest: bool = False) -> np.ndarray:
    """The volume seen through a displacement: ``result(x) = volume(x + displacement(x))``, edges repeated.

    Args:
        volume: ``(H, W, D)``.
        displacement: ``(3, H, W, D)`` in voxels.
        nearest: take the nearest voxel, for labels, instead of trilinear interpolation.
    """
    return _sampled(volume, _sampling_grid(displacement), nearest)


def warp_pair(image: np.ndarray, labels: np.ndarray, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (trilinear) and its labels (nearest voxel) seen through one displacement, as :func:`warp` does.

    Args:
        image: ``(H, W, D)``.
        labels: ``(H, W, D)``.
        displacement: ``(3, H, W, D)`` in voxels.
    """
    grid = _sampling_grid(displacement)
    return _sampled(image, grid, nearest=False), _sampled(labels, grid, nearest=True)
