"""A page that shows a volume and its mask slice by slice in three planes, without the internet."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from bundle.files import write_atomically
from bundle.templates import render

__all__ = ["save_view"]

_NIIVUE = Path(__file__).parent / "niivue"
_TEMPLATE = Path(__file__).parent / "templates" / "view.html"
_WHITE_PERCENTILE = 99.9


def _embedded(voxels: np.ndarray, affine: np.ndarray) -> str:
    """Return a gzipped NIfTI file in base64, without the time, so that equal voxels give equal bytes."""
    return base64.b64encode(gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 6, mtime=0)).decode()


def save_view(
    name: str, head: SpatialImage, mask: SpatialImage, path: str | Path, centre_mm: Sequence[float] | None = None
) -> None:
    """Write a self-contained HTML page: NiiVue, the head in grey and the mask in orange on top.

    Left on the page is left in the head, as in the pictures. The affine is all it holds of the headers.

    Args:
        name: the title, any text.
        head: ``(H, W, D)``, its minimum 0, not 0 everywhere; it is reduced to 256 greys, the brightest 0.1 % to white.
        mask: on the same grid, 0 and 1.
        path: the file.
        centre_mm: the first place of the crosshair, in the image's world; the middle of the grid unless given.

    Raises:
        OSError: if it cannot be written.
    """
    grey = np.asarray(head.dataobj, dtype=np.float32)
    greys = (grey / np.percentile(grey[grey > 0], _WHITE_PERCENTILE) * 255).clip(0, 255).round().astype(np.uint8)
    page = render(
        _TEMPLATE,
        name=name,
        centre_mm=json.dumps(centre_mm),
        head=_embedded(greys, head.affine),
        mask=_embedded(np.asarray(mask.dataobj, dtype=np.uint8), mask.affine),
        licence=(_NIIVUE / "LICENSE").read_text(encoding="utf-8"),
        niivue=(_NIIVUE / "niivue.umd.js").read_text(encoding="utf-8"),
    )
    write_atomically(page, path)
