"""Resampling of registered heads to the grid of the ATLAS data set."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import SpatialResample
from monai.utils import ensure_tuple_rep

from bundle.mni import atlas_grid
from bundle.transforms.keywise import InvertibleKeywiseTransform

__all__ = ["ResampleToAtlasd"]


class ResampleToAtlasd(InvertibleKeywiseTransform):
    """Resampling to :func:`bundle.mni.atlas_grid`, 0 outside the image. MONAI's ``Spacingd`` takes no fixed grid.

    Args:
        keys: images in MNI space.
        spacing_mm: voxel size of the grid.
        mode: interpolation for all keys, or one for each.
    """

    def __init__(self, keys: KeysCollection, spacing_mm: float, mode: str | Sequence[str] = "bilinear") -> None:
        super().__init__(keys, SpatialResample(padding_mode="zeros", dtype=torch.float32))
        self.affine, self.shape = atlas_grid(spacing_mm)
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Return the data with resampled images."""
        d = dict(data)
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.transform(d[key], torch.as_tensor(self.affine), self.shape, mode=mode)
        return d
