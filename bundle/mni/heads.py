"""What is head and what is air, decided here alone: for the network, the registration, the box and the picture."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["air_to_zero", "head_mask"]

# A volume with noise or ringing about 0 has few voxels below this share of its brightest; a standardised one has many.
_RINGING = 0.05
# Air, fluid and bone are dark in every T1w image: if all voxels are brighter than this share, an offset was added.
_OFFSET = 0.2
_SHARE_OF_AIR = 0.1  # voxels of one value, from which on they are air that a standardisation has left out
_SAME = 1e-5  # of the range of intensities
_DARKEST = 0.15  # of a brain's voxels, as a share of their median, in plain images
_HOT = 2.0  # times the 99.9th percentile


def head_mask(image: np.ndarray) -> np.ndarray:
    """Return the mask of the head, or of the brain of a skull-stripped image.

    It is the largest component of the voxels brighter than a tenth of the way from the 2nd to the 98th percentile
    (BET's robust threshold, Smith, 2002). Holes are filled, so that dark cavities and ventricles are inside.

    Args:
        image: ``(H, W, D)``.

    Returns:
        boolean mask ``(H, W, D)``; all False if nothing is brighter than the background.
    """
    low, high = np.percentile(image, (2, 98))
    mask = ndimage.binary_opening(image > low + 0.1 * (high - low))
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    largest = np.bincount(labels.ravel())[1:].argmax() + 1
    # The opening removed the outermost voxel, which shares its volume with the air.
    return ndimage.binary_fill_holes(ndimage.binary_dilation(labels == largest))


def air_to_zero(volume: np.ndarray) -> np.ndarray:
    """Return intensities with air at 0 and tissue above it, and without hot voxels.

    In images that are plain already only hot voxels change, such as the brightest points of vessels. Otherwise the air
    is at 0 and the tissue is on both sides of it (standardised inside a mask), or the air is the darkest there is
    (standardised as a whole, scaled to -1..1, or with an offset), which may be a value far below all others, such as
    -9999.

    Args:
        volume: ``(H, W, D)``, float32.

    Returns:
        the same shape; the volume itself if nothing had to change.
    """
    lifted = _lift(volume)
    hot = _HOT * float(np.percentile(_sparse(lifted), 99.9))
    return np.minimum(lifted, hot) if 0 < hot < lifted.max() else lifted


def _without_padding(volume: np.ndarray) -> np.ndarray:
    """Return a volume with 0 where it has a value that is far below all others."""
    sparse = _sparse(volume)
    if (padding := float(sparse.min())) >= 0:
        return volume
    others = sparse[sparse > padding]
    if not others.size or 1 - others.size / sparse.size < _SHARE_OF_AIR:
        return volume
    lowest, bright = float(others.min()), float(np.percentile(others, 98))
    return np.where(volume > padding, volume, 0) if lowest - padding > bright - lowest else volume


def _lift(volume: np.ndarray) -> np.ndarray:
    volume = _without_padding(volume)
    darkest, low, bright = np.percentile(_sparse(volume), (0.1, 2, 98))
    if -_RINGING * bright < low and darkest < _OFFSET * bright:
        return volume
    tissue = np.abs(volume) > _SAME * (bright - low)
    if low < 0 and 1 - tissue.mean() > _SHARE_OF_AIR:
        darkest, median = np.percentile(volume[tissue], (0.5, 50))
        offset = (_DARKEST * median - darkest) / (1 - _DARKEST)
        return np.where(tissue, np.maximum(volume + offset, 0), 0)
    return volume - low


def _sparse(volume: np.ndarray) -> np.ndarray:
    """Return every second voxel along each axis, which is enough for a percentile and takes an eighth of the time."""
    return volume[::2, ::2, ::2]
