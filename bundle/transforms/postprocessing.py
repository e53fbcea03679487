"""From a network's logits to the mask on the source's grid, the counterpart of the preprocessing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass
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
"""Just above three voxels of 2 mm (0.024 mL), the voxel size of the shipped weights."""


class LesionMask(NamedTuple):
    """A mask and the probability that it was thresholded from, both ``(1, H, W, D)`` on the source's grid.

    Args:
        mask: uint8, 1 is lesion.
        probability: float32, 0..1, 0 outside the head.
    """

    mask: MetaTensor
    probability: MetaTensor


@dataclass(eq=False)
class LogitsToMask(Transform):
    """Conversion of logits to probability and mask on the source's grid, the same in evaluation and in inference.

    Sigmoid, 0 outside the head, the inverse of the preprocessing, clipping to 0..1, threshold, removal of small
    components. It runs on the CPU, so that the same logits give the same mask on every machine.

    Args:
        preprocessing: of the image alone, ``keys="image"``.
        threshold: probability from which a voxel is lesion, 0..1.
        smallest_lesion_ml: volume below which components are removed from the mask, in mL; voxels that touch by a face,
            an edge or a corner are one component.

    Raises:
        ValueError: if a number is out of its range.
    """

    preprocessing: VolumePreprocessing
    threshold: float = 0.5
    smallest_lesion_ml: float = SMALLEST_LESION_ML

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a probability, 0 to 1, got {self.threshold}.")
        if not 0 <= self.smallest_lesion_ml < math.inf:
            raise ValueError(f"smallest_lesion_ml must be 0 or more and finite, got {self.smallest_lesion_ml}.")

    def __call__(self, logits: torch.Tensor, image: MetaTensor) -> LesionMask:
        """
        Args:
            logits: the network's output, ``(1, H, W, D)``.
            image: the preprocessed image, with its applied operations.

        Returns:
            mask and probability, with the metadata and the affine of the source.
        """
        image = image.cpu()
        found = torch.sigmoid(logits.as_subclass(torch.Tensor).cpu().float())
        found = torch.where(inside_head(image.as_tensor()), found, 0.0)
        on_network_grid = convert_to_dst_type(found, image)[0]
        on_network_grid.applied_operations = deepcopy(image.applied_operations)  # which the inverse removes
        probability = self.preprocessing.inverse({"image": on_network_grid})["image"].clamp(0, 1)
        mask = (probability.as_tensor()[0] >= self.threshold).to(torch.uint8).numpy()
        mask = remove_small_components(mask, probability.affine.numpy(), self.smallest_lesion_ml)
        return LesionMask(convert_to_dst_type(mask[None], probability, dtype=torch.uint8)[0], probability)


class LogitsToMaskd(MapTransform):
    """Dictionary version of :class:`LogitsToMask`: the mask replaces the logits, ``probability`` is added.

    Args:
        keys: the logits; their preprocessed image is ``image``.
        preprocessing: as for :class:`LogitsToMask`.
        threshold: as for :class:`LogitsToMask`.
        smallest_lesion_ml: as for :class:`LogitsToMask`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        preprocessing: VolumePreprocessing,
        threshold: float = 0.5,
        smallest_lesion_ml: float = SMALLEST_LESION_ML,
    ) -> None:
        super().__init__(keys)
        self.to_mask = LogitsToMask(preprocessing, threshold, smallest_lesion_ml)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Return the data with mask and probability."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key], d["probability"] = self.to_mask(d[key], d["image"])
        return d
