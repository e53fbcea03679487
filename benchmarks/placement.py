"""What a registration leaves of a known distortion: ``python -m benchmarks.placement HEADS``.

Each scan is placed in MNI space, and so are copies of it whose header turns, shifts and scales the head by a known map.
Where the copy's placement after that map differs from the scan's own placement, that is the error of the placement. The
simulator draws placement errors of this size (``bundle.data.simulate.head_shape.misplace``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from bundle.errors import InputError
from scripts.command import run_command

__all__ = ["PlacementError", "distortion", "placement", "placement_error"]

_BRAIN_CENTRE_MM = np.array([0.0, -18.0, 22.0])
_TURN_SD_DEG, _SHIFT_SD_MM, _SIZE_SD = 8.0, 12.0, 0.06


class PlacementError(NamedTuple):
    """How one placement differs from another, each along or about the three axes."""

    shift_mm: np.ndarray
    turn_deg: np.ndarray
    size_percent: np.ndarray


def distortion(rng: np.random.Generator) -> np.ndarray:
    """Return a random affine map ``(4, 4)`` of a head in mm: turned, scaled and shifted."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.normal(0, _TURN_SD_DEG, 3), degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.diag(np.exp(rng.normal(0, _SIZE_SD, 3)))
    matrix[:3, 3] = rng.normal(0, _SHIFT_SD_MM, 3)
    return matrix


def placement_error(difference: np.ndarray) -> PlacementError:
    """Return the parts of an affine map ``(4, 4)`` of MNI space in mm that should be the identity.

    The shift is that of the brain's centre; turn and size are those of the polar decomposition.
    """
    left, scales, right = np.linalg.svd(difference[:3, :3])
    stretch = right.T @ np.diag(scales) @ right
    return PlacementError(
        apply_affine(difference, _BRAIN_CENTRE_MM) - _BRAIN_CENTRE_MM,
        Rotation.from_matrix(left @ right).as_rotvec(degrees=True),
        100 * (np.diag(stretch) - 1),
    )


def placement(heads: Sequence[str], scans: int = 8, copies: int = 3, seed: int = 0) -> None:
    """Print the standard deviations of the placement's error over copies of some scans.

    Args:
        heads: folder or file, or several, of T1w scans.
        scans: how many of them, evenly from all.
        copies: of each.
        seed: of the distortions.
    """
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms import LoadImage

    from bundle.data import find_images
    from bundle.transforms import AffineToMNI

    files = find_images(heads)
    chosen = [files[number] for number in np.unique(np.linspace(0, len(files) - 1, scans).round().astype(int))]
    rng = np.random.default_rng(seed)
    load, place = LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True), AffineToMNI()
    errors, refused = [], 0
    for file in chosen:
        scan = load(file)
        own = place.find(scan).affine
        for _ in range(copies):
            moved = distortion(rng)
            try:
                found = place.find(MetaTensor(scan.as_tensor(), affine=moved @ scan.affine.numpy())).affine
            except InputError:  # what is refused leaves no error
                refused += 1
                continue
            errors.append(placement_error(found @ moved @ np.linalg.inv(own)))
            print(f"{file}: shift {errors[-1].shift_mm.round(2)} mm, turn {errors[-1].turn_deg.round(2)} degrees")
    print(f"{refused} copies could not be placed.")
    print(f"{len(errors)} copies of {len(chosen)} scans, root mean square along or about the axes right, front, top:")
    for name, unit in (("shift", "mm"), ("turn", "deg"), ("size", "percent")):
        values = np.array([getattr(error, f"{name}_{unit}") for error in errors])
        each, all_axes = np.sqrt((values**2).mean(axis=0)), np.sqrt((values**2).mean())
        print(f"  {name}: {all_axes:.2f} {unit} ({', '.join(f'{value:.2f}' for value in each)})")


if __name__ == "__main__":
    run_command(placement)
