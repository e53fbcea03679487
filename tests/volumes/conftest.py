"""Fixtures for volumes: a head with bright cubes, and a network that finds bright voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.transforms import VolumePreprocessing
from bundle.volumes.pipeline import VolumePipeline

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])

WriteHead = Callable[..., Path]


def find_bright(image: torch.Tensor) -> torch.Tensor:
    """Stand in for inferer and network: logits of 10 where the image is over 2, of -10 elsewhere."""
    return torch.where(image > 2, 10.0, -10.0)


@pytest.fixture
def cubes(head: np.ndarray) -> np.ndarray:
    """A cube of 10 voxels a side, 8 mL, and one of 2, 0.064 mL, inside the head of 2 mm voxels; uint8."""
    mask = np.zeros(head.shape, dtype=np.uint8)
    mask[20:30, 50:60, 55:65] = 1
    mask[55:57, 50:52, 60:62] = 1
    return mask


@pytest.fixture
def write_head(head: np.ndarray, cubes: np.ndarray, tmp_path: Path) -> WriteHead:
    """Write the head with its cubes, in an orientation, to ``tmp_path / scans / name``."""

    def write(name: str, axcodes: str = "RAS") -> Path:
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(np.where(cubes, 250, head).astype(np.int16), AFFINE)
        image.set_sform(AFFINE, 1)
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
        )
        nib.save(image.as_reoriented(turn), path)
        return path

    return write


@pytest.fixture
def pipeline(tmp_path: Path) -> VolumePipeline:
    """A pipeline in native space that writes to ``tmp_path / results``."""
    return VolumePipeline(VolumePreprocessing("image", spacing_mm=2.0, slice_size=96), tmp_path / "results")
