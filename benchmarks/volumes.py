"""Whole volumes, from file to mask, by the command: ``python -m benchmarks.volumes``.

The volumes are the MNI head with simulated lesions on grids of three voxel sizes, turned and moved so that each must be
registered; what counts is the time.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.processing import resample_to_output
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from bundle.files import bundle_root
from scripts.command import run_command

__all__ = ["volumes", "write_heads"]

_VOXELS_MM = (1.0, 0.7, 3.0)
_COPIES = 4


def _moved(seed: int) -> np.ndarray:
    """Return an affine in world space: some degrees and millimetres, as patients lie in a scanner."""
    random = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", random.uniform(-8, 8, 3), degrees=True).as_matrix()
    affine[:3, 3] = random.uniform(-15, 15, 3)
    return affine


def write_heads(folder: Path, count: int, voxel_mm: float = 1.0, move: bool = True) -> None:
    """Write copies of a head with a simulated stroke, each with its own position and noise, int16.

    Args:
        folder: where to write.
        count: how many.
        voxel_mm: the size of their voxels.
        move: out of MNI space.
    """
    from bundle.data.simulate import load_head, simulate_case
    from bundle.mni import TEMPLATE, atlas_grid

    folder.mkdir(parents=True, exist_ok=True)
    case = simulate_case(load_head(str(TEMPLATE)), np.random.default_rng(0), volume_ml=30.0)
    image = nib.Nifti1Image(case.image, atlas_grid()[0])
    if voxel_mm != 1.0:
        image = resample_to_output(image, (voxel_mm,) * 3, order=1)
    voxels = np.asarray(image.dataobj)
    for number in tqdm(range(count), desc=f"writing volumes of {voxel_mm} mm"):
        noisy = voxels + (voxels > 0) * np.random.default_rng(number).normal(0, 0.02, voxels.shape)
        affine = _moved(number) @ image.affine if move else image.affine
        stored = nib.Nifti1Image((noisy * 500).clip(0).astype(np.int16), affine)
        nib.save(stored, folder / f"head_{number:03d}.nii.gz")


def _fine_weights(folder: Path) -> Path:
    """Return a copy of the shipped weights with settings of 1 mm, the thesis's grid: the work is the same."""
    from bundle.weights import read_settings, write_settings

    shipped = Path(bundle_root()) / "models" / "model.pt"
    shutil.copy(shipped, folder / "fine.pt")
    write_settings(folder / "fine.pt", replace(read_settings(shipped), spacing_mm=1.0))
    return folder / "fine.pt"


def _segment(scans: Path, output: Path, weights: Path) -> dict[str, Any]:
    """Return the medians of the volumes' seconds, and the command's own."""
    shutil.rmtree(output, ignore_errors=True)
    words = [sys.executable, "-m", "scripts.segment", str(scans), str(output), f"--weights={weights}", "--timing"]
    begin = time.perf_counter()
    told = subprocess.run([*words, "--noprogress"], cwd=bundle_root(), capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    imports, ready, work = map(float, re.findall(r"^Seconds: (\S+) .*, (\S+) .*, (\S+) at", told.stdout, re.M)[0])
    records = [json.loads(file.read_text()) for file in sorted((output / "records").rglob("*.json"))]
    timing = {step: statistics.median(record["timing"][step] for record in records) for step in records[0]["timing"]}
    return {
        **timing,
        "volumes": len(records),
        "imports": imports,
        "ready": ready,
        "work": work,
        "command": seconds,
        "peak_mb": max(record["peak_memory_mb"] for record in records),
    }


def volumes(output: str = "runs/bench/volumes.json", copies: int = _COPIES) -> None:
    """Measure single files that are in MNI space, and batches that are not, with 2 mm (shipped) and 1 mm networks.

    Args:
        output: the JSON to write.
        copies: volumes of a batch.
    """
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {2.0: Path(bundle_root()) / "models" / "model.pt", 1.0: _fine_weights(folder)}
        write_heads(folder / "single", 1, move=False)
        for network_mm, file in weights.items():
            _segment(folder / "single", folder / "results", file)  # converted, and read from the disk
            for _ in range(3):
                found = _segment(folder / "single", folder / "results", file)
                rows.append({"kind": "single", "voxel_mm": 1.0, "network_mm": network_mm, **found})
        for voxel_mm in _VOXELS_MM:
            write_heads(folder / f"{voxel_mm}", copies, voxel_mm)
            for network_mm, file in weights.items():
                found = _segment(folder / f"{voxel_mm}", folder / "results", file)
                rows.append({"kind": "batch", "voxel_mm": voxel_mm, "network_mm": network_mm, **found})
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(", ".join(f"{key} {value:.2f}" if isinstance(value, float) else str(value) for key, value in row.items()))


if __name__ == "__main__":
    run_command(volumes)
