"""Volume, location and probability of each lesion of a mask, computed by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from bundle.volumes.lesion_table import RegionAtlas, entropy_bits, find_lesions

# Voxels of 1 x 2 x 4 mm, 8 cubic mm, the first axis to the left.
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 4, -20], [0, 0, 0, 1]])


def masks(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros((60, 40, 20), dtype=np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def test_a_lesion_of_known_volume_and_location() -> None:
    mask = masks(np.s_[10:15, 4:8, 2:4])
    (lesion,) = find_lesions(mask, np.where(mask, 0.75, 0.0), AFFINE, np.eye(4))
    assert lesion.number == 1
    assert lesion.volume_ml == pytest.approx(5 * 4 * 2 * 8 / 1000)
    assert (lesion.x_mm, lesion.y_mm, lesion.z_mm) == pytest.approx((30 - 12, -40 + 5.5 * 2, -20 + 2.5 * 4))
    assert lesion.side == "right"
    assert lesion.region == ""
    assert lesion.mean_probability == pytest.approx(0.75)
    assert lesion.mean_uncertainty == pytest.approx(0.8112781, abs=1e-6)  # -(3/4 log2 3/4 + 1/4 log2 1/4)


def test_lesions_are_numbered_by_volume_and_corners_connect() -> None:
    mask = masks(np.s_[0:2, 0:2, 0:2], np.s_[20:24, 4:8, 2:6], np.s_[24:26, 8:10, 6:8])
    lesions = find_lesions(mask, mask.astype(float), AFFINE, np.eye(4))
    assert [lesion.number for lesion in lesions] == [1, 2]
    assert [lesion.volume_ml for lesion in lesions] == pytest.approx([(64 + 8) * 0.008, 8 * 0.008])


@pytest.mark.parametrize(("first", "side"), [(0, "right"), (40, "left"), (25, "both"), (21, "right"), (22, "both")])
def test_a_lesion_is_on_the_side_of_nine_tenths_of_it(first: int, side: str) -> None:
    """Ten voxels from x = 30 - first down to 21 - first; those at 0 count as left."""
    mask = masks(np.s_[first : first + 10, 0:1, 0:1])
    (lesion,) = find_lesions(mask, mask.astype(float), AFFINE, np.eye(4))
    assert lesion.side == side


def test_sides_are_those_in_mni_space_and_unknown_without_registration() -> None:
    mask = masks(np.s_[0:5, 0:5, 0:5])
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    assert find_lesions(mask, mask.astype(float), AFFINE, turned)[0].side == "left"
    assert find_lesions(mask, mask.astype(float), AFFINE, None)[0].side == "unknown"


def test_an_empty_mask_has_no_lesions() -> None:
    assert find_lesions(masks(), np.zeros((60, 40, 20)), AFFINE, np.eye(4)) == []


def test_entropy_is_one_bit_at_a_half_and_zero_at_0_and_1() -> None:
    assert entropy_bits(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1, 0], abs=1e-5)


# Regions


def atlas(folder: Path, names: dict[str, str]) -> Path:
    """Label 1 at x from 0 on, label 2 below, 0 where y is over 0."""
    labels = np.zeros((80, 100, 60), dtype=np.int16)
    labels[:40, :50], labels[40:, :50] = 2, 1
    affine = np.eye(4)
    affine[:3, 3] = (-40, -50, -30)
    nib.save(nib.Nifti1Image(labels, affine), folder / "atlas.nii.gz")
    for suffix, text in names.items():
        (folder / f"atlas{suffix}").write_text(text)
    return folder / "atlas.nii.gz"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, "1"),
        ({".txt": "1|MCAR|middle cerebral artery right|4\n2|MCAL|middle cerebral artery left|3\n"},
         "middle cerebral artery right"),
        ({".tsv": "index\tname\n2\tleft\n1\tright\n"}, "right"),
    ],
)  # fmt: skip
def test_the_region_is_that_with_most_of_the_lesion(names: dict, expected: str, tmp_path: Path) -> None:
    regions = RegionAtlas(atlas(tmp_path, names))
    mask = masks(np.s_[20:35, 0:5, 0:5])  # x from 10 to -4
    assert find_lesions(mask, mask.astype(float), AFFINE, np.eye(4), regions)[0].region == expected
    front = masks(np.s_[20:35, 25:30, 0:5])
    assert find_lesions(front, front.astype(float), AFFINE, np.eye(4), regions)[0].region == ""
    assert find_lesions(mask, mask.astype(float), AFFINE, None, regions)[0].region == ""


def test_a_file_that_is_not_an_atlas_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/none\.nii\.gz does not exist\.$"):
        RegionAtlas(tmp_path / "none.nii.gz")
    with pytest.raises(InputError, match=r"/atlas\.txt does not name the regions of .*atlas\.nii\.gz: columns index"):
        RegionAtlas(atlas(tmp_path, {".txt": "one|two\n"}))
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2)), np.eye(4)), tmp_path / "four.nii.gz")
    with pytest.raises(InputError, match=r"/four\.nii\.gz holds 2 volumes \(4D\): one 3D volume is expected"):
        RegionAtlas(tmp_path / "four.nii.gz")
