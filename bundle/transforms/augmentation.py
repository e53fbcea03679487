"""Random changes of one sample: a stack of slices and its label."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.transforms import (
    Compose,
    EnsureTyped,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    Transform,
)
from monai.transforms.transform import Randomizable

from bundle.transforms.slices import Plane

__all__ = ["SliceAugmentation"]


class SliceAugmentation(Randomizable, Transform):
    """Left-right flip, affine, contrast, brightness, blur, bias field and noise, on all slices of a stack alike.

    The slices are neighbours, so one draw serves them all. Outside the head the image stays 0, as in inference.

    Args:
        plane: of the slices; sagittal ones are not flipped, in which left and right are not to be seen.
    """

    def __init__(self, plane: Plane = "axial") -> None:
        keys = ("image", "label")
        self.spatial = Compose(
            [
                RandFlipd(keys, prob=0.0 if plane == "sagittal" else 0.5, spatial_axis=0),
                RandAffined(
                    keys,
                    prob=0.8,
                    rotate_range=0.2,
                    shear_range=(0.1, 0.1),  # a single number would be for the first axis alone
                    translate_range=(8, 8),
                    scale_range=(0.15, 0.15),
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                ),
                EnsureTyped(keys, track_meta=False),
            ]
        )
        self.intensity = Compose(
            [
                RandScaleIntensityd("image", factors=0.25, prob=0.7),
                RandAdjustContrastd("image", gamma=(0.7, 1.4), prob=0.4),
                RandBiasFieldd("image", coeff_range=(0.0, 0.15), prob=0.3),
                RandGaussianSmoothd("image", sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), prob=0.2),
                RandGaussianNoised("image", std=0.06, prob=0.4),
                EnsureTyped("image", track_meta=False),
            ]
        )

    def set_random_state(
        self, seed: int | None = None, state: object | None = None
    ) -> SliceAugmentation:  # the signature is MONAI's
        """Seeds both parts, differently."""
        super().set_random_state(seed, state)
        self.spatial.set_random_state(self.R.randint(2**31))
        self.intensity.set_random_state(self.R.randint(2**31))
        return self

    def __call__(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """``image`` ``(S, H, W)`` and ``label`` ``(1, H, W)``, changed, of the same shapes."""
        moved = self._apply(self.spatial, data)
        head = moved["image"] != 0
        changed = self._apply(self.intensity, moved)
        return changed | {"image": changed["image"] * head}

    @staticmethod
    def _apply(transform: Callable, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        result: dict[str, torch.Tensor] = transform(dict(data))
        return result
