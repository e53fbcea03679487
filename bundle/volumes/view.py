"""A page to look through a volume and its mask with, slice by slice in three planes, without the internet."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from bundle.files import write_atomically

__all__ = ["save_view"]

_NIIVUE = Path(__file__).parent / "niivue"
_WHITE_PERCENTILE = 99.9

# Whatever a script of the page may try, nothing of the volume leaves it.
_NO_NETWORK = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 0; height: 100vh; display: flex; flex-direction: column;
  color: #e6edf3; background: #000; }
header { display: flex; flex-wrap: wrap; gap: .25rem 2rem; align-items: center; padding: .6rem 1rem;
  background: #1b1f24; }
h1 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
label { display: flex; gap: .5rem; align-items: center; }
input { accent-color: #e69f00; }
#place { font-variant-numeric: tabular-nums; min-width: 17rem; }
.help { color: #9da7b1; flex-basis: 100%; font-size: .85rem; }
main { flex: 1; min-height: 0; }
"""

_SCRIPT = """
const canvas = document.querySelector("canvas"), place = document.getElementById("place");
const opacity = document.querySelector("input");
const volume = (id, options) => niivue.NVImage.loadFromBase64({
  base64: document.getElementById(id).textContent, name: `${id}.nii.gz`, cal_min: 0, ...options });

async function show() {
  const viewer = new niivue.Niivue({
    crosshairColor: [0.34, 0.71, 0.91, 1], crosshairGap: 6, crosshairWidth: 0.75, dragAndDropEnabled: false,
    logLevel: "error", multiplanarPadPixels: 8, multiplanarShowRender: niivue.SHOW_RENDER.NEVER });
  viewer.onLocationChange = ({ mm }) => {
    place.textContent = `Crosshair: ${[...mm].slice(0, 3).map(value => value.toFixed(1)).join(", ")} mm`;
  };
  await viewer.attachToCanvas(canvas, true);
  viewer.addColormap("lesion", { R: [0, 230], G: [0, 159], B: [0, 0], A: [0, 255], I: [0, 255] });
  viewer.addVolume(await volume("head", { colormap: "gray", cal_max: 255 }));
  viewer.addVolume(await volume("mask", { colormap: "lesion", cal_max: 1, opacity: opacity.valueAsNumber }));
  const centre = JSON.parse(canvas.dataset.centre);
  if (centre) viewer.scene.crosshairPos = viewer.mm2frac(centre);
  viewer.drawScene();
  viewer.createOnLocationChange();
  opacity.addEventListener("input", () => viewer.setOpacity(1, opacity.valueAsNumber));
}
show().catch(error => { place.textContent = `This browser cannot show the volume: ${error.message}`; });
"""


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
    title = escape(name.encode("utf-8", "backslashreplace").decode())
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{_NO_NETWORK}">
<title>{title}</title><style>{_STYLE}</style></head><body>
<header><h1>{title}</h1>
<label>Mask <input type="range" min="0" max="1" step="0.05" value="0.5"></label>
<span id="place">The volume is being unpacked ...</span><strong>Not for clinical use.</strong>
<span class="help">Click or drag to move the crosshair, turn the wheel to go through the slices, drag with the right
button to set the contrast. L is the left of the head.</span></header>
<main><canvas data-centre="{json.dumps(centre_mm)}"></canvas></main>
<script type="application/gzip" id="head">{_embedded(greys, head.affine)}</script>
<script type="application/gzip" id="mask">{_embedded(lesion, mask.affine)}</script>
<script>/*
{licence}*/
{niivue}</script>
<script>{_SCRIPT}</script></body></html>
"""
    write_atomically(page, path)
