"""Intensities that mean the same in every volume."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_data_type, convert_to_dst_type

from bundle.errors import InputError
from bundle.mni import air_to_zero, head_mask
from bundle.transforms.keywise import KeywiseTransform

__all__ = ["AirToZero", "AirToZerod", "NormalizeHeadIntensity", "NormalizeHeadIntensityd", "inside_head"]


def inside_head(normalized: torch.Tensor) -> torch.Tensor:
    """Return where an image of :class:`NormalizeHeadIntensity` shows the head, as booleans of its shape."""
    return normalized > 0


class AirToZero(Transform):
    """Conversion to intensities with air at 0 and tissue above it, by :func:`bundle.mni.air_to_zero`."""

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """
        Args:
            img: ``(1, H, W, D)``.

        Returns:
            the same shape, float32.
        """
        volume = img.as_tensor().float().numpy(force=True)[0]
        lifted = air_to_zero(volume)
        return img if lifted is volume else convert_to_dst_type(lifted[None], img, dtype=torch.float32)[0]


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
