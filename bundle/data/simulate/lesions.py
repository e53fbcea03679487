"""Where lesions are: real masks from a bank or procedural ones, warped and fitted to a head."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage
from tqdm import tqdm

from bundle.data.simulate.fields import smooth_noise, warp
from bundle.data.simulate.tissues import Tissue
from bundle.errors import InputError, explain
from bundle.headers import open_image
from bundle.lesions import lesion_voxels
from bundle.mni import atlas_grid

__all__ = ["ATLAS_QUANTILES_ML", "LesionMasks", "draw_lesion", "draw_volume_ml", "fit_lesion"]

ATLAS_QUANTILES_ML = {0.05: 0.14, 0.25: 1.0, 0.50: 4.3, 0.75: 31.9, 0.95: 135.6}
"""Lesion volume per case of ATLAS R2, by the share of cases that have no more."""

_SMALLEST_ML, _LARGEST_ML = 0.08, 200.0

_ALIKE = 12
_MARGIN = 8
_BOTH_SIDES = 0.1
# What lies between parts of a lesion this far apart is inside it, as raters draw it.
_SULCI_INSIDE_MM = 8


def draw_volume_ml(rng: np.random.Generator) -> float:
    """A lesion volume in mL from the distribution of ATLAS R2."""
    shares = [0.0, *ATLAS_QUANTILES_ML, 1.0]
    logarithms = np.log([_SMALLEST_ML, *ATLAS_QUANTILES_ML.values(), _LARGEST_ML])
    return float(np.exp(np.interp(rng.random(), shares, logarithms)))


class LesionMasks:
    """A bank of real lesion masks in MNI space, to be drawn from by volume.

    Args:
        files: masks in MNI space, any grid; lesion as :func:`bundle.lesions.lesion_voxels` has it.
        progress: show a bar while they are read.
        balanced: draw a mask the more often, the rarer lesions are where it lies and the larger it is, and one in ten
            together with its mirror image, as a lesion of both sides. A network that trains sees large strokes of the
            cerebellum or of both hemispheres more often; cohorts to measure with have ATLAS's volumes.

    Raises:
        InputError: when there is none, or one cannot be read or holds no lesion on the ATLAS grid.
    """

    def __init__(self, files: Sequence[str], progress: bool = True, balanced: bool = False) -> None:
        if not files:
            raise InputError("There is no lesion mask to draw from.")
        self.files = list(files)
        self.affine, self.shape = atlas_grid(1.0)
        bar = tqdm(self.files, desc="lesion masks", disable=not progress)
        self.crops = [self._read(file) for file in bar]
        self.volumes_ml = np.asarray([volume_ml for *_, volume_ml in self.crops])
        self.order = np.argsort(self.volumes_ml, kind="stable")
        self.balanced = balanced
        if balanced:
            self.rarity = self._rarity()

    def _read(self, file: str) -> tuple[tuple[slice, ...], np.ndarray, float]:
        """The lesion's box on the ATLAS grid, what is in it as bits, and its volume in mL."""
        try:
            image = nib.as_closest_canonical(nib.squeeze_image(open_image(file)))
            lesion = lesion_voxels(np.asanyarray(image.dataobj), file)
            image = nib.Nifti1Image(lesion.astype(np.uint8), image.affine)
            if not np.allclose(image.affine[:3, :3], np.eye(3)):
                image = resample_from_to(image, (self.shape, self.affine), order=0)
            mask = np.asarray(image.dataobj) > 0
        except Exception as error:  # whatever a damaged file makes the reader raise
            raise InputError(explain(file, error)) from error
        # From the mask's voxels to the ATLAS grid's; what lies outside of that is cut off.
        shift = np.round(image.affine[:3, 3] - self.affine[:3, 3]).astype(int)
        inside = tuple(slice(max(-s, 0), max(e - s, 0)) for s, e in zip(shift, self.shape, strict=True))
        if not mask[inside].any():
            raise InputError(f"{file} holds no lesion inside the ATLAS grid: a mask in MNI space is expected.")
        box = box_of(mask[inside], 0)
        crop = mask[inside][box]
        start = np.maximum(shift, 0)
        placed = tuple(slice(int(b.start + s), int(b.stop + s)) for b, s in zip(box, start, strict=True))
        return placed, np.packbits(crop), int(crop.sum()) / 1000

    def _mask(self, number: int) -> np.ndarray:
        box, bits, _ = self.crops[number]
        mask = np.zeros(self.shape, dtype=bool)
        mask[box] = np.unpackbits(bits, count=mask[box].size).reshape(mask[box].shape)
        return mask

    def _rarity(self) -> np.ndarray:
        """Of each mask: 1 / the mean number of masks, on either side, that its voxels lie in."""
        masks = range(len(self.files))
        frequency = np.zeros(self.shape, dtype=np.int32)
        for number in masks:
            frequency += self._mask(number)
        frequency += frequency[::-1].copy()
        return np.array([1 / frequency[self._mask(number)].mean() for number in masks])

    def draw_volume_ml(self, rng: np.random.Generator) -> float:
        """A lesion volume in mL: from the distribution of ATLAS R2, or in a balanced bank that of one of its masks."""
        if not self.balanced:
            return draw_volume_ml(rng)
        weights = self.rarity * np.sqrt(self.volumes_ml)
        return float(rng.choice(self.volumes_ml, p=weights / weights.sum()))

    def draw(self, rng: np.random.Generator, volume_ml: float) -> tuple[str, np.ndarray]:
        """One of the masks nearest to a volume, left and right swapped half the time, or both sides at once.

        Returns:
            its file, and the mask on the ATLAS grid, boolean.
        """
        both = self.balanced and rng.random() < _BOTH_SIDES
        place = int(np.searchsorted(self.volumes_ml[self.order], volume_ml / 2 if both else volume_ml))
        first = int(np.clip(place - _ALIKE // 2, 0, max(len(self.order) - _ALIKE, 0)))
        alike = self.order[first : first + _ALIKE]
        if self.balanced:
            chosen = int(rng.choice(alike, p=self.rarity[alike] / self.rarity[alike].sum()))
        else:
            chosen = int(rng.choice(alike))
        mask = self._mask(chosen)
        if both:
            return self.files[chosen], mask | mask[::-1]
        return self.files[chosen], mask[::-1].copy() if rng.random() < 0.5 else mask


def draw_lesion(
    tissue: np.ndarray, volume_ml: float, rng: np.random.Generator, centres: np.ndarray | None = None
) -> np.ndarray:
    """A procedural lesion: the tissue nearest to a random centre, in a metric stretched and roughened at random.

    It stays in the centre's hemisphere, as a stroke does: an artery supplies one.

    Args:
        tissue: voxels that may be lesion, ``(H, W, D)`` at 1 mm; the midline is in the middle of the first axis.
        volume_ml: its volume.
        rng: source of randomness.
        centres: voxels of ``tissue`` that may be the centre, boolean; all of them if None.

    Returns:
        boolean mask ``(H, W, D)`` of one piece or nearly so, inside ``tissue``.
    """
    count = max(round(volume_ml * 1000), 8)
    centre = rng.choice(np.argwhere(tissue if centres is None else centres))
    right = np.arange(len(tissue)) > (len(tissue) - 1) / 2
    tissue = tissue & (right == right[centre[0]])[:, None, None]
    radius = (count * 3 / (4 * np.pi)) ** (1 / 3)
    reach = int(3 * radius) + 6
    window = tuple(slice(max(c - reach, 0), c + reach + 1) for c in centre)
    shape = tissue[window].shape
    offsets = np.stack(
        np.meshgrid(*[np.arange(s.start, s.start + n) for s, n in zip(window, shape, strict=True)], indexing="ij"), -1
    )
    offsets = (offsets - centre) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    distance = np.linalg.norm(offsets / rng.uniform(0.7, 1.4, 3), axis=-1) / radius
    score = distance + rng.uniform(0.2, 0.5) * smooth_noise(rng, shape, max(radius / 1.5, 2.0))
    score[~tissue[window]] = np.inf
    count = min(count, int(np.isfinite(score).sum()))
    lesion = np.zeros(tissue.shape, dtype=bool)
    lesion[window] = _without_crumbs(score <= np.partition(score.ravel(), count - 1)[count - 1], 0.05 * count)
    return lesion


def _without_crumbs(mask: np.ndarray, smallest: float) -> np.ndarray:
    pieces, found = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=found + 1)
    sizes[0] = 0
    kept: np.ndarray = np.isin(pieces, np.flatnonzero(sizes >= max(smallest, 4)))
    return kept


def box_of(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box of the voxels that are True, wider by ``margin``, inside the array."""
    ranges = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return tuple(
        slice(max(int(r[0]) - margin, 0), min(int(r[-1]) + 1 + margin, extent))
        for r, extent in zip(ranges, mask.shape, strict=True)
    )


def _parenchyma(tissue: np.ndarray) -> np.ndarray:
    """Grey and white matter and the narrow sulci between, which raters include; not the ventricles."""
    solid = (tissue == Tissue.GREY) | (tissue == Tissue.WHITE)
    closed: np.ndarray = ndimage.binary_closing(solid, iterations=2) & (tissue >= Tissue.CSF)
    return closed & (tissue != Tissue.VENTRICLE)


def radius_mm(mask: np.ndarray) -> float:
    """Of the ball of the mask's volume."""
    return float((3 * mask.sum() / (4 * np.pi)) ** (1 / 3))


def _smooth(mask: np.ndarray) -> np.ndarray:
    """The mask's volume without its notches and strands, which a threshold draws and a rater does not."""
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), min(0.15 * radius_mm(mask), 2.0))
    smooth: np.ndarray = blurred >= np.partition(blurred.ravel(), -mask.sum())[-mask.sum()]
    return smooth


def _without_strips(lesion: np.ndarray) -> np.ndarray:
    """Without what is thinner than 3 mm, or 5 mm in a large lesion: beside sulci as dark, nobody would see it."""
    radius = radius_mm(lesion)
    if radius < 4:
        return lesion
    opened: np.ndarray = ndimage.binary_opening(lesion, iterations=1 if radius < 10 else 2)
    return opened


def fit_lesion(
    mask: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, opens: bool = False
) -> np.ndarray | None:
    """The mask warped by 1 to 3 mm, clipped to the head's brain tissue and drawn as a rater would.

    Args:
        mask: boolean, ``(H, W, D)`` at 1 mm.
        tissue: :class:`Tissue` of each voxel.
        rng: source of randomness.
        opens: the lesion takes the tissue that is left between it and the ventricle or the surface, up to 4 mm.

    Returns:
        the lesion, or None when less than half of the mask is tissue here.
    """
    box = box_of(mask, _MARGIN)
    shape = mask[box].shape
    push = rng.uniform(1, 3) * np.stack([smooth_noise(rng, shape, 14.0) for _ in range(3)])
    # 1 to 3 mm on average over the mask, not of each component; never out of the box.
    warped = _smooth(warp(mask[box].astype(np.float32), np.clip(push / 1.6, 1 - _MARGIN, _MARGIN - 1)) > 0.5)
    tissue = tissue[box]
    parenchyma = _parenchyma(tissue)
    between = ndimage.binary_closing(np.pad(warped & parenchyma, 5), iterations=_SULCI_INSIDE_MM // 2)[5:-5, 5:-5, 5:-5]
    allowed = parenchyma | (warped & between & (tissue == Tissue.CSF))
    lesion = _without_strips(warped & allowed)
    if lesion.sum() < max(0.5 * mask.sum(), 8):
        return None
    if opens:
        fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE)
        bridge = ndimage.binary_closing(np.pad(lesion | fluid, 5), iterations=2)[5:-5, 5:-5, 5:-5]
        lesion |= bridge & allowed & ndimage.binary_dilation(lesion, iterations=4)
    fitted = np.zeros(mask.shape, dtype=bool)
    fitted[box] = _without_crumbs(lesion, min(20.0, 0.1 * float(lesion.sum())))
    return fitted if fitted.any() else None
