"""MONAI's reader of NIfTI with what its headers mean."""

from __future__ import annotations

from typing import Any

from monai.data import NibabelReader
from monai.utils import ensure_tuple

from bundle.nifti import load_image

__all__ = ["HeaderReader"]


class HeaderReader(NibabelReader):
    """MONAI's reader with :func:`bundle.nifti.load_image`.

    Where voxel sizes differ a little, MONAI's own takes a qform that the header says is not valid, and loses the
    orientation.
    """

    def read(self, data: Any, **options: Any) -> Any:
        """Return one image, or a list for several files."""
        self.filenames = ensure_tuple(data)
        images = [load_image(file) for file in self.filenames]
        return images if len(images) > 1 else images[0]
