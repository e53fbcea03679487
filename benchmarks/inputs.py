"""How many good T1w heads are refused, and how many things that are none are let in, up to the network.

Run with ``python -m benchmarks.inputs HEADS OTHERS``: every head is copied in the ways that scanners and programs store
heads, and made into things that are no T1w head; files of OTHERS that are none, such as T2w or CT, are tried as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_to_output
from scipy import ndimage
from tqdm import tqdm

from bundle.data import find_images
from bundle.errors import InputError, explain
from bundle.headers import check_header
from bundle.mni import head_mask
from bundle.transforms import VolumePreprocessing
from scripts.command import run_command

Scan = tuple[np.ndarray, np.ndarray]

_LEAST_BRAIN = 0.05  # of the result's voxels; a brain in a box of 192 mm has a fifth


def _turned(scan: Scan, codes: str) -> Scan:
    image = nib.Nifti1Image(*scan)
    image = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))
    return image.get_fdata(dtype=np.float32), image.affine


def _read(file: str) -> Scan:
    image = nib.squeeze_image(nib.load(file))
    return image.get_fdata(dtype=np.float32), image.affine


def _resampled(scan: Scan, *sizes_mm: float) -> Scan:
    image = resample_to_output(nib.Nifti1Image(*scan), sizes_mm, order=1)
    return image.get_fdata(dtype=np.float32), image.affine


def _standardised(voxels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return (voxels - voxels[chosen].mean()) / voxels[chosen].std()


def _in_mask(voxels: np.ndarray) -> np.ndarray:
    inside = head_mask(voxels)
    return np.where(inside, _standardised(voxels, inside), 0)


def _levels(voxels: np.ndarray, count: int) -> np.ndarray:
    highest = float(np.percentile(voxels, 99.8))
    return np.round(np.clip(voxels / highest, 0, 1) * (count - 1))


def _stripped(voxels: np.ndarray) -> np.ndarray:
    inside = ndimage.binary_erosion(head_mask(voxels), iterations=2)
    return np.where(inside, voxels, 0)


def _of_voxels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Scan], Scan]:
    return lambda scan: (change(scan[0]), scan[1])


GOOD: dict[str, Callable[[Scan], Scan]] = {
    "as it is": lambda scan: scan,
    "stored as LPS": lambda scan: _turned(scan, "LPS"),
    "stored as PSR": lambda scan: _turned(scan, "PSR"),
    "voxels of 1 x 1.5 x 3 mm": lambda scan: _resampled(scan, 1.0, 1.5, 3.0),
    "slices of 5 mm": lambda scan: _resampled(scan, 2.0, 2.0, 5.0),
    "standardised": _of_voxels(lambda voxels: _standardised(voxels, voxels > -np.inf)),
    "standardised in a mask": _of_voxels(_in_mask),
    "scaled to -1..1": _of_voxels(lambda voxels: voxels / voxels.max() * 2 - 1),
    "with an offset": _of_voxels(lambda voxels: voxels + 0.5 * voxels.max()),
    "of 32 levels": _of_voxels(lambda voxels: _levels(voxels, 32)),
    "darker middle tones": _of_voxels(lambda voxels: (np.clip(voxels, 0, None) / voxels.max()) ** 1.4),
    "two voxels eroded": _of_voxels(_stripped),
}


def _t2_like(voxels: np.ndarray) -> np.ndarray:
    bright = float(np.percentile(voxels, 99.5))
    return np.where(head_mask(voxels), np.clip(1.2 * bright - voxels, 0, None), 0)


def _even(voxels: np.ndarray) -> np.ndarray:
    return ndimage.median_filter(_levels(ndimage.gaussian_filter(voxels, 1), 5), 3)


def _balls(voxels: np.ndarray) -> np.ndarray:
    places = np.stack(np.meshgrid(*(np.linspace(-1.2, 1.2, extent) for extent in voxels.shape), indexing="ij"))
    radius = np.sqrt((places**2).sum(axis=0))
    noise = np.random.default_rng(0).normal(0, 3, voxels.shape)
    return np.where(radius < 1, 100 + 60 * np.cos(9 * radius) + noise, 0)


OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a map of tissue codes": _even,
    "a mask of the head": lambda voxels: head_mask(voxels).astype(np.float32),
    "probability of grey matter": lambda voxels: np.exp(-((voxels / np.percentile(voxels, 98) - 0.6) ** 2) / 0.01),
    "noise": lambda voxels: np.random.default_rng(0).normal(100, 20, voxels.shape),
    "a phantom of shells": _balls,
    "four volumes": lambda voxels: np.stack([voxels] * 4, axis=-1),
    "inverted": lambda voxels: voxels.max() - voxels,
    "T2w-like": _t2_like,
}


def _is_let_in(file: Path, preprocessing: VolumePreprocessing) -> str:
    """Return why a file is refused, or an empty text."""
    try:
        check_header(file)
        image = preprocessing({"image": str(file)})["image"]
    except Exception as error:  # as the segment command does
        return explain(file, error)
    return "" if float((image > 0).float().mean()) > _LEAST_BRAIN else f"{file} gives an empty brain."


def _tried(scan: Scan, name: str, folder: Path, preprocessing: VolumePreprocessing) -> str:
    file = folder / f"{name}.nii"
    nib.save(nib.Nifti1Image(scan[0].astype(np.float32), scan[1]), file)
    return _is_let_in(file, preprocessing)


def measure(heads: str, others: str | None = None, count: int = 6) -> None:
    """Print a table of the good copies that are refused and of the others that are let in.

    Args:
        heads: folder of T1w heads.
        others: folder of images that are no T1w head.
        count: heads that are copied, spread over the folder.
    """
    files = find_images(heads)
    chosen = files[:: max(len(files) // count, 1)][:count]
    preprocessing = VolumePreprocessing("image", spacing_mm=2.0, slice_size=96, space="mni")
    found: dict[str, list[str]] = {}
    bar = tqdm(total=len(chosen) * len(GOOD | OTHERS))
    with tempfile.TemporaryDirectory() as folder:
        for file in chosen:
            # At 2 mm, as the network sees it: a fifth of the time.
            scan = _resampled(_read(file), 2.0, 2.0, 2.0)
            for name, make in (GOOD | {name: _of_voxels(change) for name, change in OTHERS.items()}).items():
                found.setdefault(name, []).append(_tried(make(scan), name, Path(folder), preprocessing))
                bar.update()
    for file in find_images(others) if others else ():
        found.setdefault(Path(file).name, []).append(_is_let_in(Path(file), preprocessing))
    _print(found)


def _print(found: dict[str, list[str]]) -> None:
    good = {name: sum(map(bool, reasons)) for name, reasons in found.items() if name in GOOD}
    others = {name: reasons.count("") for name, reasons in found.items() if name not in GOOD}
    tried = [sum(len(found[name]) for name in names) for names in (good, others)]
    if not tried[0]:
        raise InputError("No head of HEADS can be registered: whole or stripped T1w heads are expected.")
    print(f"{sum(good.values())} of {tried[0]} good copies are refused.")
    print(f"{sum(others.values())} of {tried[1]} others are let in.")
    for name, wrong in (good | others).items():
        print(f"| {name} | {len(found[name])} | {wrong} |")
        for reason in filter(None, found[name]) if name in GOOD else ():
            print(f"  {reason}")


if __name__ == "__main__":
    run_command(measure)
