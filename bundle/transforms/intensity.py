"""Intensities that mean the same in every volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_data_type, convert_to_dst_type
from scipy import ndimage

from bundle.errors import InputError

__all__ = ["NormalizeHeadIntensity", "NormalizeHeadIntensityd", "head_mask", "inside_head"]


def head_mask(image: np.ndarray) -> np.ndarray:
    """The head (or the brain of a skull-stripped image): what is not air outside.

    Brighter than a tenth of the way from the 2nd to the 98th percentile (BET's robust threshold, Smith, 2002), the
    largest piece of it, holes filled, so that dark cavities and ventricles are inside.

    Args:
        image: ``(H, W, D)``.

    Returns:
        boolean mask ``(H, W, D)``; all False when nothing stands out.
    """
    low, high = np.percentile(image, (2, 98))
    mask = ndimage.binary_opening(image > low + 0.1 * (high - low))
    pieces, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1
    # One more voxel, which the opening took and where partial volume with the air begins.
    return ndimage.binary_fill_holes(ndimage.binary_dilation(pieces == largest))


def inside_head(normalized: torch.Tensor) -> torch.Tensor:
    """Return where an image of :class:`NormalizeHeadIntensity` shows the head, as booleans of its shape."""
    return normalized > 0


class NormalizeHeadIntensity(Transform):
    """Air outside the head becomes 0, the median of the head, or of its brain where that is known, 1.

    MONAI's ``NormalizeIntensity(nonzero=True)`` takes the noise of the air for head in images that are not
    skull-stripped, and gives negative values, which a multiplicative bias field or a gamma would turn around.

    Args:
        brain: boolean mask ``(H, W, D)`` on the images' grid; the median is then that of the head inside it, which neck
            and scalp do not change. None: of the whole head.
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
            InputError: when no head stands out from the background.
            ValueError: when the brain's mask has another shape than the image.
        """
        volume = convert_data_type(img, np.ndarray, dtype=np.float32)[0][0]
        if self.brain is not None and self.brain.shape != volume.shape:
            raise ValueError(f"brain is {self.brain.shape}, the image {volume.shape}: equal shapes are needed.")
        mask = head_mask(volume)
        measured = mask if self.brain is None else mask & self.brain
        level = float(np.median(volume[measured])) if measured.any() else 0.0
        if level <= 0:
            raise InputError(f"{self._name(img)} shows no head: nothing is brighter than its background.")
        normalized = np.where(mask, np.maximum(volume, 0) / level, 0)[None]
        return convert_to_dst_type(normalized, img, dtype=torch.float32)[0]

    @staticmethod
    def _name(img: NdarrayOrTensor) -> str:
        return str(getattr(img, "meta", {}).get("filename_or_obj", "The image"))


class NormalizeHeadIntensityd(MapTransform):
    """Dictionary version of :class:`NormalizeHeadIntensity`.

    Args:
        keys: the images to normalise.
        brain: as for :class:`NormalizeHeadIntensity`.
    """

    def __init__(self, keys: KeysCollection, brain: np.ndarray | None = None) -> None:
        super().__init__(keys)
        self.normalize = NormalizeHeadIntensity(brain)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """The data with normalised images."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.normalize(d[key])
        return d
