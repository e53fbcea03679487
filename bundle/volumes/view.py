"""A page to look through a volume and its mask with, slice by slice in three planes, without the internet."""

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
    """A gzipped NIfTI file in base64, without the time, so that equal voxels give equal bytes."""
    return base64.b64encode(gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 6, mtime=0)).decode()


def save_view(
    name: str, head: SpatialImage, mask: SpatialImage, path: str | Path, centre_mm: Sequence[float] | None = None
) -> None:
    """Writes an HTML page that needs nothing beside it: NiiVue, the head in grey and the mask in orange upon it.

    Left on the page is left in the head, as in the pictures. Of the headers only the affine goes into it.

    Args:
        name: the title; it may hold anything.
        head: ``(H, W, D)``, from 0 on and not 0 everywhere; 256 greys are kept of it, up to nearly its brightest.
        mask: of the same grid, 0 and 1.
        path: the file.
        centre_mm: where the crosshair is at first, in the image's world; in the middle of the grid unless given.

    Raises:
        OSError: when it cannot be written.
    """
    grey = np.asarray(head.dataobj, dtype=np.float32)
    white = np.percentile(grey[grey > 0], _WHITE_PERCENTILE)
    greys = (grey / white * 255).clip(0, 255).round().astype(np.uint8)
    lesion = np.asarray(mask.dataobj, dtype=np.uint8)
    licence, niivue = ((_NIIVUE / file).read_text(encoding="utf-8") for file in ("LICENSE", "niivue.umd.js"))
    page = render(
        _TEMPLATE,
        name=name,
        centre_mm=json.dumps(centre_mm),
        head=_embedded(greys, head.affine),
        mask=_embedded(lesion, mask.affine),
        licence=licence,
        niivue=niivue,
    )
    write_atomically(page, path)
