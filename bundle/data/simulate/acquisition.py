"""What the scanner and the preprocessing do to a head: contrast, bias field, resolution, noise, defacing, stripping."""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import GibbsNoise, KSpaceSpikeNoise
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise
from bundle.data.simulate.landmarks import COARSE, depth_below_hull, place_in_brain
from bundle.data.simulate.tissues import Tissue

__all__ = [
    "acquire",
    "acquire_varied",
    "add_ghosts",
    "deface",
    "slice_thickly",
    "strip_skull",
    "strip_skull_loosely",
    "strip_too_loosely",
    "strip_too_tightly",
]

_SD_PER_WIDTH = 1 / 2.355

# Shares of the scans of :func:`acquire_varied` with each trace of a scanner, drawn one by one.
_THICK_SHARE = 0.30
_LOW_FIELD_SHARE = 0.10
_RINGING_SHARE = 0.15
_GHOSTS_SHARE = 0.12
_SPIKES_SHARE = 0.03

# Thick slices are mostly axial, then sagittal, then coronal.
_THICK_AXES = (0.25, 0.15, 0.60)
_THICK_MM = (3.0, 6.0)

# Shares of what skull stripping leaves: too little, too much; the rest is as by :func:`strip_skull`.
_TIGHT_SHARE = 0.25
_LOOSE_SHARE = 0.25
_EYES_SHARE = 0.5


def strip_skull(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The brain alone, with 0 to 3 mm of what is around it, as one tool or another leaves it."""
    brain = ndimage.binary_closing(tissue >= Tissue.CSF, iterations=2)
    # Fluid around the brain is taken away first: tools differ most in how much of it they keep.
    core = ndimage.binary_opening(brain & ~((tissue == Tissue.CSF) & (rng.random() < 0.5)), iterations=1)
    kept = ndimage.binary_fill_holes(ndimage.binary_dilation(core, iterations=int(rng.integers(1, 4))))
    stripped: np.ndarray = image * kept
    return stripped


def deface(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nothing in front of and below a plane that passes in front of the brain."""
    axes = np.meshgrid(*[np.arange(extent, dtype=np.float32) for extent in image.shape], indexing="ij", sparse=True)
    slope = rng.uniform(0.4, 1.5)
    front = axes[1] - slope * axes[2]
    brain = tissue >= Tissue.CSF
    cut = float(front[:, :, :].repeat(image.shape[0], axis=0)[brain].max()) + rng.uniform(3, 12)
    return np.where(front > cut, np.float32(0), image)


def acquire(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One scan of the head: a gamma, thick slices, a bias field and Rician noise, each at random.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 1 at the white matter mode, 0 outside the head.
        rng: source of randomness.

    Returns:
        a new image, 0 where the image was 0.
    """
    scan = np.maximum(image, 0) ** np.float32(rng.uniform(0.8, 1.3))
    widths = np.where(rng.random(3) < 0.25, rng.uniform(1, 4, 3), rng.uniform(0, 1.2, 3))
    for axis, width in enumerate(widths):
        if width > 0.5:
            scan = ndimage.gaussian_filter1d(scan, width * _SD_PER_WIDTH, axis=axis, truncate=2.5)
    scan = scan * np.exp(rng.uniform(0.0, 0.15) * smooth_noise(rng, scan.shape, rng.uniform(60, 120)))
    scan = _add_rician_noise(scan, rng.uniform(0.005, 0.05), rng)
    return np.where(image > 0, scan, 0).astype(np.float32)


def _add_rician_noise(scan: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    real, imaginary = (rng.standard_normal(scan.shape, dtype=np.float32) for _ in range(2))
    noisy: np.ndarray = np.hypot(scan + sd * real, sd * imaginary)
    return noisy


def slice_thickly(
    image: np.ndarray, axis: int, spacing_mm: float, thickness_mm: float, first_mm: float = 0.0
) -> np.ndarray:
    """Return the volume as it is after thick slices were scanned and interpolated to 1 mm again.

    Each slice is the mean over its thickness; between the middles of two slices the volume is their linear
    interpolation.

    Args:
        image: ``(H, W, D)`` at 1 mm.
        axis: across the slices.
        spacing_mm: from the middle of a slice to that of the next.
        thickness_mm: of a slice, less than the spacing where there is a gap.
        first_mm: where the middle of the first slice is, from the middle of the first voxel.
    """
    extent = image.shape[axis]
    middles = np.arange(first_mm, extent - 1 + spacing_mm, spacing_mm)
    voxels = np.arange(extent)
    overlap = np.minimum(voxels + 0.5, middles[:, None] + thickness_mm / 2)
    overlap = np.maximum(overlap - np.maximum(voxels - 0.5, middles[:, None] - thickness_mm / 2), 0)
    means = overlap / np.maximum(overlap.sum(axis=1, keepdims=True), 1e-6)
    # Slices beyond the volume repeat the last one in it.
    means[overlap.sum(axis=1) == 0] = means[overlap.sum(axis=1) > 0][-1]
    between = np.clip(1 - np.abs(voxels[:, None] - middles) / spacing_mm, 0, 1)
    between /= between.sum(axis=1, keepdims=True)
    along = torch.from_numpy((between @ means).astype(np.float32))
    moved = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).movedim(axis, 0)
    scanned: np.ndarray = torch.tensordot(along, moved, dims=1).movedim(0, axis).contiguous().numpy()
    return scanned


def add_ghosts(image: np.ndarray, axis: int, shift: int, strength: float, phase: float) -> np.ndarray:
    """Return the volume with the ghosts of a periodic motion: copies displaced along the phase encoding.

    A motion with a period of ``N / shift`` lines modulates the k-space of ``N`` lines by ``1 + strength cos(2 pi k
    shift / N + phase)``, which in the image is a copy of half that strength on either side.

    Args:
        image: ``(H, W, D)``.
        axis: of the phase encoding.
        shift: displacement of the copies in voxels; they come in again on the other side.
        strength: of the modulation, 0 to 1.
        phase: of the modulation at the middle of k-space, in radians.
    """
    ahead, behind = np.roll(image, shift, axis), np.roll(image, -shift, axis)
    real = image + np.float32(strength / 2 * np.cos(phase)) * (ahead + behind)
    imaginary = np.float32(strength / 2 * np.sin(phase)) * (ahead - behind)
    ghosted: np.ndarray = np.hypot(real, imaginary)
    return ghosted


def _disturb_k_space(scan: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Ringing, motion ghosts and spikes, each in its share."""
    names = []
    across, phase_axis = rng.permutation(3)[:2].tolist()
    if rng.random() < _RINGING_SHARE:
        slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(scan, across, 0)))
        ringing = np.asarray(GibbsNoise(alpha=rng.uniform(0.40, 0.60))(slices))
        scan = np.moveaxis(ringing, 0, across).astype(np.float32)
        names.append("ringing")
    if rng.random() < _GHOSTS_SHARE:
        shift = int(rng.uniform(0.08, 0.5) * scan.shape[phase_axis])
        scan = add_ghosts(scan, phase_axis, shift, rng.uniform(0.05, 0.25), rng.uniform(0, 2 * np.pi))
        names.append("ghosts")
    if rng.random() < _SPIKES_SHARE:
        slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(scan, across, 0)))
        place = tuple(int(n / 2 + rng.choice((-1, 1)) * rng.uniform(0.05, 0.35) * n) for n in slices.shape[1:])
        amplitude = rng.uniform(0.02, 0.08) * slices.shape[1] * slices.shape[2]
        spiked = np.asarray(KSpaceSpikeNoise(loc=place, k_intensity=float(np.log(amplitude)))(slices))
        scan = np.moveaxis(spiked, 0, across).astype(np.float32)
        names.append("spikes")
    return scan, names


def acquire_varied(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Return one scan of the head as scans are found, with more of a scanner's traces than :func:`acquire` has.

    A gamma, a bias field and Rician noise are in every scan; thick slices along any axis (3 to 6 mm, some with gaps),
    the blur and noise of a low field, ringing, motion ghosts and spikes in k-space in a share of them.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, about 1 at the white matter mode, 0 outside the head.
        rng: source of randomness; the same state gives the same bytes.

    Returns:
        a new image of the same shape, float32, 0 where the image was 0, and the names of the traces.
    """
    names = []
    scan = np.maximum(image, 0) ** np.float32(rng.uniform(0.8, 1.3))
    low_field = bool(rng.random() < _LOW_FIELD_SHARE)
    if low_field:
        scan = ndimage.gaussian_filter(scan, rng.uniform(1.8, 3.0) * _SD_PER_WIDTH, truncate=2.5)
        names.append("low field")
    else:
        for axis, width in enumerate(rng.uniform(0, 1.4, 3)):
            if width > 0.6:
                scan = ndimage.gaussian_filter1d(scan, width * _SD_PER_WIDTH, axis=axis, truncate=2.5)
    if rng.random() < _THICK_SHARE:
        spacing_mm = rng.uniform(*_THICK_MM)
        axis = int(rng.choice(3, p=_THICK_AXES))
        scan = slice_thickly(scan, axis, spacing_mm, spacing_mm * rng.uniform(0.75, 1.0), rng.uniform(0, spacing_mm))
        names.append("thick slices")
    scan, disturbances = _disturb_k_space(np.ascontiguousarray(scan), rng)
    scan = scan * np.exp(rng.uniform(0.0, 0.25) * smooth_noise(rng, scan.shape, rng.uniform(60, 140)))
    noisy = _add_rician_noise(scan, rng.uniform(0.02, 0.07) if low_field else rng.uniform(0.005, 0.06), rng)
    return np.where(image > 0, noisy, 0).astype(np.float32), names + disturbances


def strip_too_tightly(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the brain without up to 3 mm of cortex in patches, and without some whole gyri, 0 elsewhere."""
    depth = depth_below_hull(tissue)
    solid = ndimage.binary_opening(ndimage.binary_closing(tissue >= Tissue.GREY, iterations=2), iterations=1)
    # What is solid begins below the fluid; the patches are as deep again in it.
    cut_mm = np.clip(1.0 + 2.0 * smooth_noise(rng, tissue.shape, rng.uniform(20, 40)), 0, 3)
    border = depth[solid & ~ndimage.binary_erosion(solid)]
    below_fluid = depth - max(float(np.percentile(border, 20)), 0.0) if len(border) else depth
    # Deep fissures and cisterns are not entered, however wide.
    deep = depth > 12
    kept = (solid & (below_fluid > cut_mm)) | deep
    surface = np.argwhere((np.abs(depth) < 1)[::COARSE, ::COARSE, ::COARSE]) * COARSE
    for centre in rng.choice(surface, int(rng.integers(0, 4))) if len(surface) else []:
        radius = rng.uniform(8, 15)
        box = tuple(slice(max(int(c - radius), 0), int(c + radius) + 1) for c in centre)
        grid = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, tissue.shape, strict=True))]
        kept[box] &= sum(((g - c) / radius) ** 2 for g, c in zip(grid, centre, strict=True)) > 1
    kept = ndimage.binary_fill_holes(kept) & ((tissue >= Tissue.CSF) | deep)
    return np.where(kept, image, 0).astype(np.float32)


def strip_too_loosely(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the brain with up to 8 mm of dura and bone around it, in a share with parts of the eyes, 0 elsewhere."""
    depth = depth_below_hull(tissue)
    reach_mm = np.clip(3.0 + 3.0 * smooth_noise(rng, tissue.shape, rng.uniform(20, 50)), 1, 8)
    kept = (depth > -reach_mm) | (tissue >= Tissue.CSF)
    if rng.random() < _EYES_SHARE:
        grid = np.ogrid[tuple(slice(extent) for extent in tissue.shape)]
        for x in (0.26, 0.74):
            centre = place_in_brain(tissue, (x, 0.97, 0.24)) + rng.uniform(-3, 3, 3)
            radius = rng.uniform(6, 15)
            kept |= sum(((g - c) / radius) ** 2 for g, c in zip(grid, centre, strict=True)) < 1
    return np.where(kept, image, 0).astype(np.float32)


def strip_skull_loosely(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the brain as stripping leaves it: too tight in a share, too loose in another, or as :func:`strip_skull`.

    Args:
        image: T1w ``(H, W, D)`` at 1 mm, 0 outside the head.
        tissue: :class:`Tissue` of each voxel, in RAS.
        rng: source of randomness; the same state gives the same bytes.

    Returns:
        a new image, 0 where it was taken away.
    """
    kind = rng.random()
    if kind < _TIGHT_SHARE:
        return strip_too_tightly(image, tissue, rng)
    if kind < _TIGHT_SHARE + _LOOSE_SHARE:
        return strip_too_loosely(image, tissue, rng)
    return strip_skull(image, tissue, rng)
