"""Heads on the ATLAS grid with their tissues, from T1w images and from tissue label maps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from fnmatch import fnmatch
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import LoadImage, Orientation, SpatialResample
from monai.utils import convert_to_dst_type
from scipy import ndimage
from tqdm import tqdm

from bundle.checks import check_volume
from bundle.data.simulate.fields import smooth_noise
from bundle.data.simulate.white_matter import white_matter_levels, white_matter_mode
from bundle.errors import InputError, explain
from bundle.files import replacing
from bundle.headers import open_image
from bundle.mni import atlas_brain, atlas_grid
from bundle.processes import begin_worker
from bundle.transforms.intensity import NormalizeHeadIntensity
from bundle.transforms.reader import HeaderReader
from bundle.transforms.registration import AffineToMNI

__all__ = ["Head", "Tissue", "has_skull", "load_head", "load_heads"]


class Tissue(IntEnum):
    """What a voxel of a :class:`Head` is."""

    AIR = 0
    OUTSIDE_BRAIN = 1
    CSF = 2
    GREY = 3
    WHITE = 4
    VENTRICLE = 5


def has_skull(tissue: np.ndarray) -> bool:
    """Return whether a head of these tissues is whole, not skull-stripped."""
    return bool((tissue == Tissue.OUTSIDE_BRAIN).sum() > 0.3 * (tissue >= Tissue.CSF).sum())


@dataclass(frozen=True)
class Head:
    """A healthy head on the ATLAS grid (197 x 233 x 189, 1 mm, MNI).

    Args:
        name: of its file.
        tissue: :class:`Tissue` of each voxel, uint8.
        image: T1w, float32, 1 at the white matter mode, 0 outside the head; None when it is drawn from ``labels``.
        labels: FreeSurfer's codes, with those of the head outside the brain from 500 on, int16; or None.
        lookalikes: the brain has changes that are not stroke, as of multiple sclerosis; no lesion is simulated in it.
    """

    name: str
    tissue: np.ndarray
    image: np.ndarray | None = None
    labels: np.ndarray | None = None
    lookalikes: bool = False

    def t1w(self, rng: np.random.Generator) -> np.ndarray:
        """A copy of the image, or one drawn with a random T1-like contrast from the labels."""
        if self.image is not None:
            return self.image.copy()
        assert self.labels is not None
        return _draw_t1w(self.labels, rng)


# FreeSurfer's and SynthSeg's codes by tissue. Right-sided ones (41 to 63) are added below.
_LEFT = {
    Tissue.WHITE: (2, 7, 16, 28, 77, 85, 30, 62, 25),
    Tissue.GREY: (3, 8, 10, 11, 12, 13, 17, 18, 26),
    Tissue.CSF: (24,),
    Tissue.VENTRICLE: (4, 5, 14, 15, 72),
}
_RIGHT = {2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58, 28: 60}
_RIGHT |= {25: 57}
_CSF = 24
_FIRST_OUTSIDE_BRAIN = 500
_CODES_OF_SCANS, _MOST_CODES = 100, 512

# To be raised when load_head gives other heads, so that those kept before are not taken.
_MADE_BY = 2

# A head with less than this far from the template's brain is skull-stripped.
_STRIPPED_OUTSIDE_ML = 100

# T1w intensity of each code, lowest and highest mean, where that of cerebral white matter is 1.
_CONTRAST = {
    2: (1.0, 1.0), 3: (0.58, 0.70), 4: (0.16, 0.28), 5: (0.18, 0.32), 7: (0.92, 1.0), 8: (0.58, 0.70),
    10: (0.76, 0.86), 11: (0.64, 0.74), 12: (0.68, 0.78), 13: (0.82, 0.94), 14: (0.16, 0.28), 15: (0.16, 0.28),
    16: (0.84, 0.96), 17: (0.60, 0.70), 18: (0.60, 0.70), 24: (0.16, 0.28), 26: (0.66, 0.76), 28: (0.84, 0.94),
    30: (0.5, 0.6), 62: (0.5, 0.6), 72: (0.16, 0.28), 85: (0.9, 1.0), 25: (0.8, 0.9), 136: (0.58, 0.70),
    137: (0.58, 0.70), 163: (0.58, 0.70), 164: (0.58, 0.70), 77: (0.7, 0.9), 80: (0.5, 0.7),
    # Fluid and air of the sinuses, eyes, soft tissue, optic nerve, mucosa, skin, cord, dura, bone, marrow.
    502: (0.02, 0.20), 506: (0.20, 0.35), 507: (0.40, 0.80), 508: (0.70, 0.90), 509: (0.40, 0.80), 511: (0.55, 1.10),
    512: (0.80, 0.95), 514: (0.30, 0.55), 515: (0.06, 0.25), 516: (0.50, 1.30), 530: (0.40, 0.70),
}  # fmt: skip
_CONTRAST |= {right: _CONTRAST[left] for left, right in _RIGHT.items()}


# Codes that stand for another one: older thalamus, plexus, hypointensities by side, white matter of no region, corpus
# callosum and fornix, samseg's head outside the brain.
_SAME_AS = {9: 10, 48: 49, 31: 4, 63: 43, 78: 77, 79: 77, 81: 80, 82: 80, 5001: 2, 5002: 41}
_SAME_AS |= dict.fromkeys(range(250, 256), 2) | {257: 24, 258: 507, 165: 515, 259: 515}
_REGIONS = (3, 42, 2, 41)  # of cortex and white matter, by the thousands of their codes


def _base_code(code: int) -> int:
    if 1000 <= code < 5000 or 11100 <= code < 15000:
        return _REGIONS[(code // 1000) % 10 - 1]
    return _SAME_AS.get(code, code)


def _tissue_codes(values: np.ndarray) -> np.ndarray | None:
    """Return FreeSurfer's codes without those of regions, or None if both hemispheres' tissues are not among them."""
    found, places = np.unique(values, return_inverse=True)
    if len(found) > _MOST_CODES or not (found == np.round(found)).all():
        return None
    # A scan of 256 whole numbers has all codes too, but hardly two neighbours that are the same.
    same = values[:, 1:] == values[:, :-1]
    if len(found) >= _CODES_OF_SCANS and same[values[:, 1:] > 0].mean() < 0.5:
        return None
    codes = np.array([_base_code(int(code)) for code in found], dtype=np.int32)
    return codes[places].reshape(values.shape) if {2, 3, 4, 41, 42, 43} <= set(codes.tolist()) else None


def _draw_t1w(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    table = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    for code in np.unique(labels).tolist():
        table[code] = rng.uniform(*_CONTRAST[code]) if code else 0.0
    # One fluid is as another, whether or not there is any outside the ventricles, and left is as right.
    fluid = table[_CSF] or rng.uniform(*_CONTRAST[_CSF])
    for code in (*_LEFT[Tissue.VENTRICLE], *(_RIGHT[code] for code in (4, 5))):
        if code < len(table):
            table[code] = fluid * rng.uniform(0.95, 1.05)
    for left, right in _RIGHT.items():
        if max(left, right) < len(table):
            table[right] = table[left]
    image = table[labels]
    # Soft tissue is a mixture of fat and muscle; the brain's texture is fine.
    outside = labels >= _FIRST_OUTSIDE_BRAIN
    mixture = rng.uniform(0.1, 0.3) * smooth_noise(rng, labels.shape, 6.0)
    texture = rng.uniform(0.015, 0.035) * smooth_noise(rng, labels.shape, 1.5)
    image *= 1 + np.where(outside, mixture, texture)
    blurred: np.ndarray = ndimage.gaussian_filter(np.maximum(image, 0), rng.uniform(0.45, 0.7), truncate=3)
    blurred[labels == 0] = 0
    return blurred


def _tissue_of_labels(labels: np.ndarray) -> np.ndarray:
    table = np.full(int(labels.max()) + 1, Tissue.GREY, dtype=np.uint8)
    table[0] = Tissue.AIR
    table[_FIRST_OUTSIDE_BRAIN:] = Tissue.OUTSIDE_BRAIN
    for tissue, codes in _LEFT.items():
        for code in codes:
            for either in (code, _RIGHT.get(code, code)):
                if either < len(table):
                    table[either] = tissue
    return table[labels]


def _tissue_of_image(image: np.ndarray, brain: np.ndarray, white: np.ndarray | float) -> np.ndarray:
    """Tissues by their share of the white matter's intensity there; fluid far inside the brain is ventricle."""
    tissue = np.where(image > 0, Tissue.OUTSIDE_BRAIN, Tissue.AIR).astype(np.uint8)
    smooth = ndimage.gaussian_filter(image, 0.5, truncate=2)
    if not isinstance(white, float):
        smooth = smooth / white
    tissue[brain] = np.digitize(smooth[brain], (0.45, 0.82)) + Tissue.CSF
    deep = ndimage.distance_transform_edt(ndimage.binary_closing(brain, iterations=3)) > 22
    seeds = ndimage.binary_opening((tissue == Tissue.CSF) & deep)
    # From the deep seeds along the fluid, a few mm only: horns, but not the cisterns that meet them.
    reach = ndimage.binary_dilation(seeds, iterations=8, mask=tissue == Tissue.CSF)
    tissue[reach] = Tissue.VENTRICLE
    return tissue


def _brain_of_image(image: np.ndarray) -> np.ndarray:
    """The brain of a head on the ATLAS grid, well enough to place lesions in it."""
    template = atlas_brain()
    near = ndimage.binary_dilation(template, iterations=4)
    if (image[~ndimage.binary_dilation(near, iterations=6)] > 0).sum() < _STRIPPED_OUTSIDE_ML * 1000:
        stripped: np.ndarray = ndimage.binary_fill_holes(image > 0)
        return stripped
    # The template's brain follows this head's edge: what is as bright as tissue within 4 mm, in one piece.
    mode = white_matter_mode(image, template & (image > 0))
    tissue = near & (image > 0.45 * mode) & (image < 1.5 * mode)
    pieces, _ = ndimage.label(ndimage.binary_erosion(tissue, iterations=2))
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    brain: np.ndarray = ndimage.binary_closing(ndimage.binary_dilation(largest, iterations=2) & near, iterations=6)
    return brain


def _on_atlas_grid(volume: MetaTensor, nearest: bool) -> np.ndarray:
    affine, shape = atlas_grid(1.0)
    resample = SpatialResample(mode="nearest" if nearest else "bilinear", padding_mode="zeros")
    moved: np.ndarray = resample(volume, dst_affine=affine, spatial_size=shape)[0].numpy()
    return moved


def load_head(file: str) -> Head:
    """A head on the ATLAS grid, registered to MNI where it is not there already.

    Args:
        file: T1w image, whole or skull-stripped, in any space; or a map of FreeSurfer's tissue codes (aseg, aparc+aseg,
            wmparc), with SynthSeg's codes, from 500 on, for the head outside the brain.

    Raises:
        InputError: when the file cannot be read, or its registration to MNI fails.
    """
    try:
        open_image(file)
        volume = LoadImage(reader=HeaderReader, image_only=True, ensure_channel_first=True)(file)
    except Exception as error:  # whatever a damaged file makes a reader raise
        raise InputError(explain(file, error)) from error
    if (map_codes := _tissue_codes(volume.numpy())) is None:
        check_volume(volume, file)
    else:
        volume = convert_to_dst_type(map_codes, volume)[0]
    volume = Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(volume)
    name = Path(file).name
    if map_codes is not None:
        codes = volume[0].numpy().astype(np.int16)
        if unknown := set(np.unique(codes).tolist()) - _CONTRAST.keys() - {0}:
            named = f"{sorted(unknown)[:6]}{' and more' if len(unknown) > 6 else ''}"
            raise InputError(f"{file} holds tissue codes without a T1w contrast: {named}.")
        # The brain alone is registered: the template has no skull, and here it is known what the brain is.
        brain = np.where(_tissue_of_labels(codes) >= Tissue.GREY, _draw_t1w(codes, np.random.default_rng(0)), 0)
        placed = AffineToMNI()(MetaTensor(torch.from_numpy(brain)[None], meta=volume.meta))
        volume.affine = placed.affine
        labels = _on_atlas_grid(volume, nearest=True).astype(np.int16)
        return Head(name, _tissue_of_labels(labels), labels=labels)
    image = _on_atlas_grid(AffineToMNI()(NormalizeHeadIntensity()(volume)), nearest=False)
    brain = _brain_of_image(image)
    level, white = white_matter_levels(image, brain)
    image = (image / level).astype(np.float32)
    return Head(name, _tissue_of_image(image, brain, white), image=image)


def _cached_head(file: str, cache_dir: Path | None) -> Head:
    if cache_dir is None:
        return load_head(file)
    try:
        stamp = Path(file).stat()
    except OSError as error:
        raise InputError(explain(file, error)) from error
    made = f"{_MADE_BY} {Path(file).resolve()} {stamp.st_mtime_ns} {stamp.st_size}"
    key = hashlib.sha256(os.fsencode(made)).hexdigest()[:16]
    kept = cache_dir / f"{Path(file).name}.{key}.npz"
    if not kept.exists():
        head = load_head(file)
        arrays = {name: getattr(head, name) for name in ("tissue", "image", "labels")}
        with replacing(kept) as unfinished:
            np.savez_compressed(unfinished, **{name: array for name, array in arrays.items() if array is not None})
    with np.load(kept) as stored:
        return Head(Path(file).name, **dict(stored))


def load_heads(
    files: Sequence[str],
    cache_dir: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
    lookalike_heads: Sequence[str] = (),
) -> list[Head]:
    """Heads as :func:`load_head` gives them.

    Args:
        files: the heads.
        cache_dir: keep the registered heads there, so that the next time is quick.
        workers: processes.
        progress: show a bar.
        lookalike_heads: shell patterns of the file names of heads with changes that are not stroke.

    Raises:
        InputError: when there is none, or as for :func:`load_head`.
    """
    if not files:
        raise InputError("There is no head to simulate lesions in.")
    load = partial(_cached_head, cache_dir=None if cache_dir is None else Path(cache_dir))
    # Processes of their own, not forks: ITK's threads do not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker) as pool:
        heads = list(tqdm(pool.map(load, files), total=len(files), desc="heads", disable=not progress))
    return [replace(head, lookalikes=any(fnmatch(head.name, one) for one in lookalike_heads)) for head in heads]
