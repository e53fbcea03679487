"""What must hold of a volume before anything is done with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from bundle.errors import InputError, check_gzip

__all__ = ["CheckVolumed", "check_volume"]

# Air in Hounsfield units is -1000; no T1w image, not even a standardised one, has a tenth of its voxels that low.
_AIR_HU, _SHARE_OF_AIR = -500, 0.1


def check_volume(volume: torch.Tensor, name: str) -> None:
    """Refuses what is not one 3D image of finite numbers.

    Args:
        volume: channel-first image ``(C, H, W, D)``.
        name: the file, for the message.

    Raises:
        InputError: for 2D and 4D images, NaN or infinite voxels, a constant image, a CT, an affine that cannot be
            inverted.
    """
    if volume.dim() != 4:
        raise InputError(f"{name} has {volume.dim() - 1} spatial axes: one 3D volume is expected.")
    if volume.shape[0] != 1:
        raise InputError(f"{name} is 4D and holds {volume.shape[0]} volumes: one 3D T1w volume is expected.")
    bad = int((~torch.isfinite(volume)).sum())
    if bad:
        raise InputError(f"{name} has {bad} NaN or infinite voxels: an image of finite numbers is expected.")
    if bool((volume == volume.flatten()[0]).all()):
        raise InputError(f"{name} is constant (every voxel is {float(volume.flatten()[0]):g}): it holds no image.")
    if float((volume < _AIR_HU).float().mean()) > _SHARE_OF_AIR:
        raise InputError(f"{name} looks like CT (Hounsfield units, air at {float(volume.min()):g}): T1w is expected.")
    if isinstance(volume, MetaTensor) and abs(np.linalg.det(volume.affine[:3, :3].numpy())) < 1e-9:
        raise InputError(f"{name} has an affine that cannot be inverted: its header is damaged.")


class CheckVolumed(MapTransform):
    """Dictionary version of :func:`check_volume`, which reads a gzip file to its end as well; changes nothing.

    Args:
        keys: the loaded images to check.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """The data as they are."""
        for key in self.key_iterator(dict(data)):
            image = data[key]
            name = image.meta.get("filename_or_obj", key) if isinstance(image, MetaTensor) else key
            if Path(str(name)).is_file():
                check_gzip(str(name))
            check_volume(image, str(name))
        return dict(data)
