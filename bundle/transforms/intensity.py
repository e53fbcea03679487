"""Intensities that mean the same in every volume."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_data_type, convert_to_dst_type
from scipy import ndimage

from bundle.errors import InputError
from bundle.transforms.keywise import KeywiseTransform

__all__ = ["AirToZero", "AirToZerod", "NormalizeHeadIntensity", "NormalizeHeadIntensityd", "head_mask", "inside_head"]


# A volume with noise or ringing about 0 has few voxels below this share of its brightest; a standardised one has many.
_RINGING = 0.05
# Air, fluid and bone are dark in every T1w image: if all voxels are brighter than this share, an offset was added.
_OFFSET = 0.2
_SHARE_OF_AIR = 0.1  # voxels that are exactly 0, from which on they are air that a standardisation has left out
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


def inside_head(normalized: torch.Tensor) -> torch.Tensor:
    """Return where an image of :class:`NormalizeHeadIntensity` shows the head, as booleans of its shape."""
    return normalized > 0


class AirToZero(Transform):
    """Conversion to intensities with air at 0 and tissue above it, and without hot voxels.

    In images that are plain already only hot voxels change, such as the brightest points of vessels. Otherwise the air
    is at 0 and the tissue is on both sides of it (standardised inside a mask), or the air is the darkest there is
    (standardised as a whole, scaled to -1..1, or with an offset).
    """

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """
        Args:
            img: ``(1, H, W, D)``.

        Returns:
            the same shape, float32.
        """
        volume = img.as_tensor().float().numpy(force=True)
        lifted = self._lift(volume)
        hot = _HOT * float(np.percentile(_sparse(lifted), 99.9))
        if hot > 0 and lifted.max() > hot:
            lifted = np.minimum(lifted, hot)
        return img if lifted is volume else convert_to_dst_type(lifted, img, dtype=torch.float32)[0]

    def _lift(self, volume: np.ndarray) -> np.ndarray:
        darkest, low, bright = np.percentile(_sparse(volume), (0.1, 2, 98))
        if -_RINGING * bright < low and darkest < _OFFSET * bright:
            return volume
        tissue = volume != 0
        if low < 0 and 1 - tissue.mean() > _SHARE_OF_AIR:
            darkest, median = np.percentile(volume[tissue], (0.5, 50))
            offset = (_DARKEST * median - darkest) / (1 - _DARKEST)
            return np.where(tissue, np.maximum(volume + offset, 0), 0)
        return volume - low


def _sparse(volume: np.ndarray) -> np.ndarray:
    """Return every second voxel along each axis, which is enough for a percentile and takes an eighth of the time."""
    return volume[:, ::2, ::2, ::2]


class AirToZerod(KeywiseTransform):
    """Dictionary version of :class:`AirToZero`."""

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys, AirToZero())


class NormalizeHeadIntensity(Transform):
    """Normalisation to 0 outside the head and a median of 1 inside the head, or inside its brain if that is known.

    MONAI's ``NormalizeIntensity(nonzero=True)`` includes the noise of the air in images that are not skull-stripped,
    and returns negative values, which a multiplicative bias field or a gamma would make darker instead of brighter.

    Args:
        brain: boolean mask ``(H, W, D)`` on the images' grid. The median is taken inside it, so that neck and scalp do
            not matter; inside the whole head if None.
    """

    def __init__(self, brain: np.ndarray | None = None) -> None:
        self.brain = brain

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Args:
            img: ``(1, H, W, D)``.

        Returns:
            the same shape, float32, 0 outside the head.

        Raises:
            InputError: if nothing is brighter than the background.
            ValueError: if the brain's mask and the image differ in shape.
        """
        volume = convert_data_type(img, np.ndarray, dtype=np.float32)[0][0]
        if self.brain is not None and self.brain.shape != volume.shape:
            raise ValueError(f"brain is {self.brain.shape}, the image {volume.shape}: they must match.")
        mask = head_mask(volume)
        measured = mask if self.brain is None else mask & self.brain
        level = float(np.median(volume[measured])) if measured.any() else 0.0
        if level <= 0:
            name = getattr(img, "meta", {}).get("filename_or_obj", "The image")
            raise InputError(f"{name} shows no head: nothing is brighter than its background.")
        normalized = np.where(mask, np.maximum(volume, 0) / level, 0)[None]
        return convert_to_dst_type(normalized, img, dtype=torch.float32)[0]


class NormalizeHeadIntensityd(KeywiseTransform):
    """Dictionary version of :class:`NormalizeHeadIntensity`.

    Args:
        keys: the images to normalise.
        brain: as for :class:`NormalizeHeadIntensity`.
    """

    def __init__(self, keys: KeysCollection, brain: np.ndarray | None = None) -> None:
        super().__init__(keys, NormalizeHeadIntensity(brain))
