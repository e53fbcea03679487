"""What the scanner and the preprocessing do to a head: contrast, bias field, resolution, noise, defacing, stripping."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.data.simulate.fields import smooth_noise
from bundle.data.simulate.tissues import Tissue

__all__ = ["acquire", "deface", "strip_skull"]

_SD_PER_WIDTH = 1 / 2.355


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
    sd = rng.uniform(0.005, 0.05)
    real, imaginary = (rng.standard_normal(scan.shape, dtype=np.float32) for _ in range(2))
    scan = np.hypot(scan + sd * real, sd * imaginary)
    return np.where(image > 0, scan, 0).astype(np.float32)
