"""The picture of a mask on its image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from scripts.picture import picture
from tests.conftest import ellipsoid

SHAPE = (40, 48, 30)
ORANGE = (230, 159, 0)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    file = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(1000 * ellipsoid(SHAPE, (20, 24, 15), (15, 18, 13)).astype(np.int16), np.eye(4)), file)
    return file


def orange_columns(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.argwhere((np.abs(pixels - ORANGE) < 40).all(axis=-1))[:, 1] / pixels.shape[1]


def test_a_lesion_on_the_right_is_right_on_the_picture_whatever_the_orientation(scan: Path, tmp_path: Path) -> None:
    mask = ellipsoid(SHAPE, (28, 24, 15), (4, 4, 8)).astype(np.uint8)
    flipped = nib.Nifti1Image(mask, np.eye(4)).as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
    nib.save(flipped, tmp_path / "mask.nii.gz")
    picture(str(scan), str(tmp_path / "mask.nii.gz"), str(tmp_path / "picture.png"), slices=1)
    assert len(orange_columns(tmp_path / "picture.png")) > 20
    assert orange_columns(tmp_path / "picture.png").min() > 0.5


def test_a_mask_of_another_grid_is_refused(scan: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"mask.nii.gz is \(4, 4, 4\), .*scan.nii.gz is \(40, 48, 30\)"):
        picture(str(scan), str(tmp_path / "mask.nii.gz"), str(tmp_path / "picture.png"))
    assert not (tmp_path / "picture.png").exists()
