"""Checks of an image's and a label's voxels, the same for every kind of input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from bundle.errors import check_gzip
from bundle.headers import check_header, check_invertible, check_one_volume, require

__all__ = ["CheckLabeld", "CheckVolumed", "check_volume"]

# Air in Hounsfield units is -1000; no T1w image, not even a standardised one, has a tenth of its voxels that low.
_AIR_HU, _SHARE_OF_AIR = -500, 0.1


def check_volume(volume: torch.Tensor, name: str) -> None:
    """Check that the voxels are one 3D T1w image of finite numbers.

    Args:
        volume: channel-first image ``(C, H, W, D)``.
        name: the file, for the message.

    Raises:
        InputError: if it is 2D, 4D, constant or CT, has NaN or infinite voxels, or a singular affine.
    """
    channels, *shape = volume.shape
    check_one_volume(name, shape if channels == 1 else [*shape, channels])
    bad = int((~torch.isfinite(volume)).sum())
    require(bad == 0, f"{name} has {bad} NaN or infinite voxels: an image of finite numbers is expected.")
    lowest, highest = (float(value) for value in volume.aminmax())
    require(lowest < highest, f"{name} is constant (every voxel is {lowest:g}): it holds no image.")
    mask = bool(((volume == lowest) | (volume == highest)).all())
    require(not mask, f"{name} has two values, {lowest:g} and {highest:g}: it is a mask, a T1w image is expected.")
    is_ct = float((volume < _AIR_HU).float().mean()) > _SHARE_OF_AIR
    require(not is_ct, f"{name} looks like CT (Hounsfield units, air at {lowest:g}): T1w is expected.")
    if isinstance(volume, MetaTensor):
        check_invertible(name, volume.affine.numpy())


class CheckVolumed(MapTransform):
    """Dictionary version of :func:`check_volume` that also checks gzip files to their end; the data do not change.

    Args:
        keys: the loaded images to check.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            image, name = data[key], _name(data[key], key)
            if _is_image_file(name):
                check_gzip(name)
                check_header(name, whole_head=False)
            check_volume(image, name)
        return dict(data)


class CheckLabeld(MapTransform):
    """Check of labels: finite whole numbers from 0, in files that are complete; the data do not change.

    Every voxel above 0 is lesion.

    Args:
        keys: the loaded labels to check.

    Raises:
        InputError: if a label has other values, or its file is damaged.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            label, name = data[key], _name(data[key], key)
            if _is_image_file(name):
                check_gzip(name)
            whole = torch.isfinite(label) & (label >= 0) & (label == label.round())
            bad = label[~whole]
            require(
                not bad.numel(),
                f"{name} has {bad.numel()} voxels such as {float(bad[0]) if bad.numel() else 0:g}: a mask of 0 and 1 "
                "is expected; threshold a probability at 0.5 first.",
            )
        return dict(data)


def _name(image: torch.Tensor, key: Hashable) -> str:
    return str(image.meta.get("filename_or_obj", key) if isinstance(image, MetaTensor) else key)


def _is_image_file(name: str) -> bool:
    return Path(name).is_file() and name.lower().endswith((".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".hdr"))
