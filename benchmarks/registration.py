"""How often a head is found from a random start, and how long that takes, by kind of start.

Run in a checkout with ``python -m benchmarks.registration HEADS OUTPUT.json``; a second checkout's file given as
``--before`` stands beside it in the table, with the same starts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from bundle.mni import find_failure, register_to_mni
from scripts.command import run_command

_CORNERS_MM = np.array(np.meshgrid((-65, 65), (-100, 65), (-45, 75), indexing="ij")).reshape(3, -1).T
_NEAR_MM = 3.0

Scan = tuple[np.ndarray, np.ndarray]


def _moved(voxels: np.ndarray, affine: np.ndarray, rng: np.random.Generator, most_deg: float) -> Scan:
    """Turn by up to some degrees about any axis, shift by up to 80 mm and scale by 0.85 to 1.15 along each axis."""
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(0, most_deg), degrees=True).as_matrix()
    world = np.eye(4)
    world[:3, :3] = turn @ np.diag(rng.uniform(0.85, 1.15, 3))
    world[:3, 3] = rng.uniform(-80, 80, 3)
    return voxels, world @ affine


def _cropped(voxels: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """Cut up to an eighth of the extent off each side."""
    starts = [int(rng.uniform(0, extent / 8)) for extent in voxels.shape]
    ends = [extent - int(rng.uniform(0, extent / 8)) for extent in voxels.shape]
    shift = np.eye(4)
    shift[:3, 3] = starts
    cut = voxels[starts[0] : ends[0], starts[1] : ends[1], starts[2] : ends[2]]
    return cut, affine @ shift


def _thick(voxels: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """Average slices to 4 to 6 mm along one of the axes."""
    axis = int(rng.integers(3))
    every = max(1, round(rng.uniform(4, 6) / float(np.linalg.norm(affine[:3, axis]))))
    kept = voxels.shape[axis] // every * every
    moved = np.moveaxis(voxels, axis, 0)[:kept]
    averaged = np.moveaxis(moved.reshape(-1, every, *moved.shape[1:]).mean(axis=1), 0, axis)
    grid = np.eye(4)
    grid[axis, axis], grid[axis, 3] = every, (every - 1) / 2
    return averaged, affine @ grid


def _with_cavity(voxels: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """Darken a ball of 30 to 45 mm radius on one side of the head's middle to a fifth."""
    places = np.stack(np.meshgrid(*(np.arange(extent) for extent in voxels.shape), indexing="ij"), -1)
    inside = np.argwhere(voxels > np.percentile(voxels, 90))
    centre = inside[rng.integers(len(inside))]
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    ball = (((places - centre) * sizes_mm) ** 2).sum(-1) < rng.uniform(30, 45) ** 2
    return np.where(ball, 0.2 * voxels, voxels).astype(np.float32), affine


def _inhomogeneous(voxels: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Scan:
    """Multiply by a smooth field of 0.5 to 2 and by noise of a twentieth, and bend the contrast."""
    coarse = np.exp(rng.uniform(-0.7, 0.7, (3, 3, 3)))
    field = ndimage.zoom(coarse, np.array(voxels.shape) / 3, order=1)
    level = float(np.percentile(voxels, 99))
    bent = np.clip(voxels / level, 0, None) ** rng.uniform(0.6, 1.6) * field
    return (bent + rng.normal(0, 0.05, voxels.shape) * (voxels > 0)).astype(np.float32), affine


_STARTS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], Scan]] = {
    "turned by up to 20 degrees": lambda voxels, affine, rng: _moved(voxels, affine, rng, 20),
    "turned by up to 40 degrees": lambda voxels, affine, rng: _moved(voxels, affine, rng, 40),
    "cropped": _cropped,
    "slices of 4 to 6 mm": _thick,
    "a cavity of 30 to 45 mm": _with_cavity,
    "uneven, noisy, other contrast": _inhomogeneous,
}


def _distance_mm(reference: np.ndarray, to_mni: np.ndarray) -> float:
    """Return the largest distance between the places in the head that two registrations give the brain's corners."""
    placed = (apply_affine(np.linalg.inv(affine), _CORNERS_MM) for affine in (reference, to_mni))
    return float(np.linalg.norm(np.subtract(*placed), axis=1).max())


def _measure(file: Path, repeats: int, seed: int) -> dict[str, list[tuple[float, float]]]:
    """Return distance in mm and CPU seconds of every start of a head, by kind."""
    image = nib.load(file)
    voxels, affine = image.get_fdata(dtype=np.float32), image.affine
    rng = np.random.default_rng(seed)
    nudge = np.eye(4)
    nudge[:3, 3] = 7  # off the MNI grids, on which a head is not registered
    result = register_to_mni(voxels, nudge @ affine)
    if find_failure(result):  # not a head, such as a mask beside one
        return {}
    reference = result.affine @ nudge
    found: dict[str, list[tuple[float, float]]] = {}
    for kind, start in _STARTS.items():
        for _ in range(repeats):
            moved, moved_affine = start(voxels, nudge @ affine, rng)
            begin = time.process_time()
            to_mni = register_to_mni(moved, moved_affine).affine
            seconds = time.process_time() - begin
            # Where the head's own world is, after what the start did to its header.
            world = moved_affine @ np.linalg.inv(nudge @ affine) if "turned" in kind else np.eye(4)
            found.setdefault(kind, []).append((_distance_mm(reference, to_mni @ world @ nudge), seconds))
    return found


def measure(heads: str, output: str, repeats: int = 4, before: str | None = None, seed: int = 0) -> None:
    """Register every head from random starts, write the distances and print the table.

    Args:
        heads: folder of T1w heads, searched with its subfolders.
        output: JSON with distance and CPU seconds of each start.
        repeats: starts of each kind for each head.
        before: a file of another checkout, as OUTPUT, to compare with.
        seed: of the starts.
    """
    files = sorted(file for file in Path(heads).rglob("*") if file.name.endswith((".nii.gz", ".mgz")))
    found: dict[str, list[tuple[float, float]]] = {}
    for number, file in enumerate(tqdm(files)):
        for kind, starts in _measure(file, repeats, seed + number).items():
            found.setdefault(kind, []).extend(starts)
        Path(output).write_text(json.dumps(found), encoding="utf-8")
    tables = [found] if before is None else [json.loads(Path(before).read_text(encoding="utf-8")), found]
    for kind in found:
        shares = [np.mean([distance <= _NEAR_MM for distance, _ in table[kind]]) for table in tables]
        seconds = [np.median([seconds for _, seconds in table[kind]]) for table in tables]
        cells = [*(f"{share:.0%}" for share in shares), *(f"{second:.1f}" for second in seconds)]
        print(f"| {kind} | {len(found[kind])} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_command(measure)
