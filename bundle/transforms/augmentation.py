"""Random augmentation of stacks of slices and their labels, of one sample or of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

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
from torch.nn import functional as F

from bundle.transforms.intensity import inside_head
from bundle.transforms.slices import Plane

__all__ = ["BatchAugmentation", "SliceAugmentation"]


class SliceAugmentation(Randomizable, Transform):
    """Left-right flip, affine, contrast, brightness, blur, bias field and noise, the same for all slices of a stack.

    Outside the head the image stays 0, as in inference.

    Args:
        plane: of the slices; sagittal ones are not flipped, as that would exchange front and back.
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
                    shear_range=(0.1, 0.1),  # a single number would apply to the first axis only
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
        """Seed both parts, differently."""
        super().set_random_state(seed, state)
        self.spatial.set_random_state(self.R.randint(2**31))
        self.intensity.set_random_state(self.R.randint(2**31))
        return self

    def __call__(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the data with changed ``image`` ``(S, H, W)`` and ``label`` ``(1, H, W)``."""
        moved: dict[str, torch.Tensor] = self.spatial(dict(data))
        head = inside_head(moved["image"])
        changed: dict[str, torch.Tensor] = self.intensity(dict(moved))
        return changed | {"image": changed["image"] * head}


@dataclass(eq=False)
class BatchAugmentation(Transform):
    """Flip, rotation, zoom, shift, bending and contrast of all samples of a batch at once, on the batch's device.

    MONAI's transforms take one sample after another, which leaves a GPU, or the other cores of a CPU, waiting. A flip
    keeps voxels sharp; the other changes interpolate, so only a part of the samples gets them. Random numbers are from
    torch's generator.

    Args:
        flip: share of samples that are flipped left to right; use 0 for sagittal slices.
        affine: share of samples that are rotated, zoomed, shifted and bent.
        rotate: largest angle in radians, either way.
        zoom: largest change of size, either way, 0..1.
        shift: largest shift along each axis, either way, as a share of the slice.
        bend: largest displacement of each of 7 x 7 control points along each axis, either way, as a share of the slice.
        contrast: share of samples whose contrast is changed.
        gamma: largest exponent of the intensities; the smallest is its inverse. 0 and the brightest pixel are fixed.
    """

    flip: float = 0.5
    affine: float = 0.5
    rotate: float = 0.15
    zoom: float = 0.1
    shift: float = 0.04
    bend: float = 0.0
    contrast: float = 0.0
    gamma: float = 1.25

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch with changed ``image`` ``(B, S, H, W)`` and ``label`` ``(B, 1, H, W)`` of square slices."""
        image, label = batch["image"], batch["label"]
        grid = self._grid(image)
        moved = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
        return batch | {
            "image": self._change_contrast(moved) if self.contrast > 0 else moved,
            "label": F.grid_sample(label, grid, mode="nearest", align_corners=False),
        }

    def _grid(self, image: torch.Tensor) -> torch.Tensor:
        """Return where each pixel is sampled from, ``(B, H, W, 2)``."""
        count, device = len(image), image.device
        chosen = (torch.rand(count, 1, device=device) < self.affine).float()
        largest = torch.tensor([self.rotate, self.zoom, 2 * self.shift, 2 * self.shift], device=device)
        angle, zoom, *shift = ((torch.rand(count, 4, device=device) * 2 - 1) * largest * chosen).unbind(1)
        # The first in-plane axis, right to left, is grid_sample's last.
        mirror = 1 - 2 * (torch.rand(count, device=device) < self.flip).float()
        cos, sin = angle.cos() * (1 + zoom), angle.sin() * (1 + zoom)
        theta = torch.stack([cos, -sin, shift[0], mirror * sin, mirror * cos, shift[1]], dim=1).view(count, 2, 3)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        if self.bend > 0:
            points = (torch.rand(count, 2, 7, 7, device=device) * 2 - 1) * 2 * self.bend * chosen[..., None, None]
            smooth = F.interpolate(points, size=image.shape[-2:], mode="bicubic", align_corners=True)
            grid = grid + smooth.permute(0, 2, 3, 1)
        return grid

    def _change_contrast(self, image: torch.Tensor) -> torch.Tensor:
        count, device = len(image), image.device
        chosen = (torch.rand(count, 1, 1, 1, device=device) < self.contrast).float()
        exponent = self.gamma ** ((torch.rand(count, 1, 1, 1, device=device) * 2 - 1) * chosen)
        brightest = image.amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(image.dtype).tiny)
        return torch.where(chosen > 0, brightest * (image.clamp(min=0) / brightest) ** exponent, image)
