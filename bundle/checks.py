"""Checks of an image's and a label's voxels, the same for every kind of input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from bundle.code_maps import is_code_map
from bundle.files import IMAGE_SUFFIXES
from bundle.headers import check_invertible, check_one_volume, open_image, require
from bundle.lesions import lesion_voxels

__all__ = ["CheckLabeld", "CheckVolumed", "check_volume"]

# In Hounsfield units air is -1000 and the brain 20 to 45; a T1w image with an offset has few voxels of both.
_AIR_HU, _SHARE_OF_AIR = (-1100, -500), 0.1
_SOFT_HU, _SHARE_OF_SOFT = (0, 100), 0.3


def check_volume(volume: torch.Tensor, name: str) -> None:
    """Check that the voxels are one 3D T1w image of finite numbers.

    Args:
        volume: channel-first image ``(C, H, W, D)``.
        name: the file, for the message.

    Raises:
        InputError: if it is 2D, 4D, constant, a mask, a map of codes or CT, has NaN or infinite voxels, or a singular
            affine.
    """
    channels, *shape = volume.shape
    check_one_volume(name, shape if channels == 1 else [*shape, channels])
    bad = int((~torch.isfinite(volume)).sum())
    require(bad == 0, f"{name} has {bad} NaN or infinite voxels: an image of finite numbers is expected.")
    lowest, highest = (float(value) for value in volume.aminmax())
    require(lowest < highest, f"{name} is constant (every voxel is {lowest:g}): it holds no image.")
    mask = bool(((volume == lowest) | (volume == highest)).all())
    require(not mask, f"{name} has two values, {lowest:g} and {highest:g}: it is a mask, a T1w image is expected.")
    codes = is_code_map(volume[0].numpy(force=True))
    require(not codes, f"{name} is a map of codes, as of tissues, or of very few levels: a T1w image is expected.")
    require(not _is_ct(volume), f"{name} looks like CT (Hounsfield units, air at -1000): T1w is expected.")
    if isinstance(volume, MetaTensor):
        check_invertible(name, volume.affine.numpy())


def _is_ct(volume: torch.Tensor) -> bool:
    air = _between(volume, *_AIR_HU)
    soft = _between(volume[volume > _AIR_HU[1]], *_SOFT_HU)
    return float(air.float().mean()) > _SHARE_OF_AIR and float(soft.float().mean()) > _SHARE_OF_SOFT


def _between(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return (values >= low) & (values <= high)


class CheckVolumed(MapTransform):
    """Dictionary version of :func:`check_volume` that also checks gzip files to their end; the data do not change.

    Args:
        keys: the loaded images to check.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            check_volume(data[key], _check_file(data[key], key))
        return dict(data)


class CheckLabeld(MapTransform):
    """Check of labels in complete files, and their conversion to 0 and 1, see :func:`bundle.lesions.lesion_voxels`.

    Args:
        keys: the loaded labels to check.

    Raises:
        InputError: if a label is not a mask, or its file is damaged.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the data with labels of 0 and 1, float32."""
        converted = dict(data)
        for key in self.key_iterator(dict(data)):
            label = data[key]
            lesion = lesion_voxels(label.numpy(force=True), _check_file(label, key))
            converted[key] = convert_to_dst_type(lesion, label, dtype=torch.float32)[0]
        return converted


def _check_file(image: torch.Tensor, key: Hashable) -> str:
    """Return the name of an image for messages, after a check of the file that it is from."""
    name = str(image.meta.get("filename_or_obj", key) if isinstance(image, MetaTensor) else key)
    if Path(name).is_file() and name.lower().endswith((*IMAGE_SUFFIXES, ".img", ".hdr")):
        open_image(name)
    return name
