"""A picture of a mask on its image: ``python -m scripts.picture IMAGE MASK PNG``."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from bundle.errors import InputError, explain
from scripts.command import run_command

__all__ = ["picture"]


def _read(file: str) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the voxels in RAS orientation, and the spacing in mm."""
    try:
        image = nib.as_closest_canonical(nib.squeeze_image(nib.load(file)))
        return np.asarray(image.dataobj), image.header.get_zooms()
    except Exception as error:  # nibabel raises errors of many kinds on a damaged file
        raise InputError(explain(file, error)) from error


def picture(image: str, mask: str, png: str, slices: int = 12) -> None:
    """Write a PNG of axial slices through the whole head with the outline of the mask.

    Args:
        image: the T1w volume.
        mask: a lesion mask on the image's grid, as inference writes it.
        png: the file to write.
        slices: the number of slices to show.
    """
    from bundle.transforms import NormalizeHeadIntensity
    from bundle.volumes.picture import save_lesion_slices, shrink

    (head, spacing_mm), (lesion, _) = _read(image), _read(mask)
    if head.ndim != 3 or head.shape != lesion.shape:
        raise InputError(f"{mask} is {lesion.shape}, {image} is {head.shape}: two 3D volumes of one grid are expected.")
    save_lesion_slices(NormalizeHeadIntensity()(head[None])[0], lesion, png, slices, spacing_mm)
    shrink(png, width=1200)
    print(png)


if __name__ == "__main__":
    run_command(picture)
