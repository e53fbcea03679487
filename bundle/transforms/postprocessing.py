"""The way from a network's logits to the mask on the grid of its source, the counterpart of the preprocessing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type

from bundle.lesions import remove_small_components
from bundle.transforms.intensity import inside_head
from bundle.transforms.preprocessing import VolumePreprocessing

__all__ = ["SMALLEST_LESION_ML", "LesionMask", "LogitsToMask", "LogitsToMaskd"]

SMALLEST_LESION_ML = 0.025
"""Three voxels of 2 mm, on which the shipped weights see a head, are 0.024 mL."""


class LesionMask(NamedTuple):
    """A mask and the probability it was cut from, both ``(1, H, W, D)`` on the grid of the source.

    Args:
        mask: uint8, 1 is lesion.
        probability: float32, 0..1, 0 outside the head.
    """

    mask: MetaTensor
    probability: MetaTensor


class LogitsToMask(Transform):
    """Logits to probability and mask on the source's grid: what is evaluated is what is delivered.

    Sigmoid, 0 outside the head, the inverse of the preprocessing, clipped to 0..1, thresholded, small components left
    out. It is computed on the CPU, so that the same logits give the same mask everywhere.

    Args:
        preprocessing: of the image alone, ``keys="image"``.
        threshold: probability from which a voxel is lesion, 0..1.
        smallest_lesion_ml: smaller components are left out of the mask, in mL; voxels that touch by a face, an edge or
            a corner are one component.

    Raises:
        ValueError: when a number is out of its range.
    """

    def __init__(
        self,
        preprocessing: VolumePreprocessing,
        threshold: float = 0.5,
        smallest_lesion_ml: float = SMALLEST_LESION_ML,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be a probability, 0 to 1, got {threshold}.")
        if smallest_lesion_ml < 0:
            raise ValueError(f"smallest_lesion_ml must be 0 or more, got {smallest_lesion_ml}.")
        self.preprocessing = preprocessing
        self.threshold = threshold
        self.smallest_lesion_ml = smallest_lesion_ml

    def __call__(self, logits: torch.Tensor, image: MetaTensor) -> LesionMask:
        """
        Args:
            logits: the network's, ``(1, H, W, D)``.
            image: the preprocessed image that they are of, with its applied operations.

        Returns:
            mask and probability, with the metadata and the affine of the source.
        """
        image = image.cpu()
        found = torch.sigmoid(logits.as_subclass(torch.Tensor).cpu().float())
        found = torch.where(inside_head(image.as_tensor()), found, 0.0)
        on_network_grid = convert_to_dst_type(found, image)[0]
        on_network_grid.applied_operations = deepcopy(image.applied_operations)  # inverting uses them up
        probability = self.preprocessing.inverse({"image": on_network_grid})["image"].clamp(0, 1)
        mask = (probability.as_tensor()[0] >= self.threshold).to(torch.uint8).numpy()
        mask = remove_small_components(mask, probability.affine.numpy(), self.smallest_lesion_ml)
        return LesionMask(convert_to_dst_type(mask[None], probability, dtype=torch.uint8)[0], probability)


class LogitsToMaskd(MapTransform):
    """Dictionary version of :class:`LogitsToMask`: the mask takes the place of the logits.

    Args:
        keys: of the logits.
        preprocessing: as for :class:`LogitsToMask`.
        threshold: as for :class:`LogitsToMask`.
        smallest_lesion_ml: as for :class:`LogitsToMask`.
        orig_keys: of the preprocessed image.
        probability_key: of the probability, which is added.
    """

    def __init__(
        self,
        keys: KeysCollection,
        preprocessing: VolumePreprocessing,
        threshold: float = 0.5,
        smallest_lesion_ml: float = SMALLEST_LESION_ML,
        orig_keys: str = "image",
        probability_key: str = "probability",
    ) -> None:
        super().__init__(keys)
        self.to_mask = LogitsToMask(preprocessing, threshold, smallest_lesion_ml)
        self.orig_keys = orig_keys
        self.probability_key = probability_key

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data with mask and probability."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key], d[self.probability_key] = self.to_mask(d[key], d[self.orig_keys])
        return d
