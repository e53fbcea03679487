"""Maps of codes are told from scans, also from those of few levels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bundle.code_maps import is_code_map

HEADS = ("chris_t1_1mm_mricron.nii.gz", "colin27_ch2.nii.gz", "niivue_norm_fs.mgz", "pumi_whole_head_2mm.nii.gz")


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("levels", [8, 12, 16, 32, 255])
def test_scans_of_few_levels_are_scans(name: str, levels: int, shared_data: Path) -> None:
    voxels = nib.load(shared_data / "t1_healthy" / name).get_fdata(dtype=np.float32)
    assert not is_code_map(voxels)
    assert not is_code_map(np.round(np.clip(voxels / np.percentile(voxels, 99.8), 0, 1) * (levels - 1)))


def test_a_scan_whose_slices_were_repeated_is_a_scan(shared_data: Path) -> None:
    voxels = nib.load(shared_data / "t1_healthy" / HEADS[3]).get_fdata(dtype=np.float32)
    assert not is_code_map(np.round(voxels / voxels.max() * 200).repeat(5, axis=2))


@pytest.mark.parametrize("number", [1, 7, 20])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_real_label_maps_are_maps(number: int, scale: float, shared_data: Path) -> None:
    file = shared_data / "label_maps" / f"training_seg_{number:02}.nii.gz"
    assert is_code_map(np.asarray(nib.load(file).dataobj) * scale)


@pytest.mark.parametrize("codes", [3, 5, 11, 48, 117])
def test_areas_of_any_number_of_codes_are_maps(codes: int) -> None:
    seeds = np.random.default_rng(0).integers(0, 48, (3, codes * 3))
    far = np.ones((48, 48, 48), dtype=bool)
    far[tuple(seeds)] = False
    nearest = ndimage.distance_transform_edt(far, return_distances=False, return_indices=True)
    names = np.zeros(far.shape, dtype=np.int16)
    names[tuple(seeds)] = np.random.default_rng(1).integers(0, codes, codes * 3)
    assert is_code_map(names[tuple(nearest)].repeat(2, 0).repeat(2, 1).repeat(2, 2))
