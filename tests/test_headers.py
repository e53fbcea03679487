"""NIfTI headers that the standard allows are read by what it says: rounded quaternions, an sform to a template."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from bundle.headers import check_header, check_same_grid
from bundle.nifti import load_image
from bundle.transforms import VolumePreprocessing
from bundle.volumes import VolumeInput, VolumePipeline
from tests.conftest import WriteNifti
from tests.test_checks import with_header, written
from tests.volumes.conftest import find_bright

NATIVE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -110], [0, 0, 2, -80], [0, 0, 0, 1]])
"""Stored from right to left."""


def scaled(factor: float = 1.2, shear: float = 0.0) -> np.ndarray:
    """The same head in a template that is larger."""
    affine = np.diag([factor, factor, factor, 1.0]) @ NATIVE
    affine[0, 1] += shear
    return affine


def image(sform: np.ndarray, sform_code: int, qform_code: int, voxels: np.ndarray) -> nib.Nifti1Image:
    made = nib.Nifti1Image(voxels, None)
    made.header.set_zooms((2, 2, 2))
    made.header.set_qform(NATIVE, qform_code)
    made.header.set_sform(sform, sform_code)
    return nib.Nifti1Image(voxels, None, made.header)


@pytest.mark.parametrize(
    "vector", [(0.0, 1.000001, 0.0), (0.0, 0.0, 1.0001), (0.70711, 0.70711, 0.0), (0.5774, 0.5774, 0.5774)]
)
def test_a_quaternion_that_rounding_made_longer_than_1_is_a_half_turn(vector: tuple, tmp_path: Path) -> None:
    names = dict(zip(("quatern_b", "quatern_c", "quatern_d"), vector, strict=True))
    file = with_header(written(tmp_path), sform_code=0, qform_code=1, **names)
    check_header(file)
    axis = np.array(vector) / np.linalg.norm(vector)
    np.testing.assert_allclose(load_image(file).affine[:3, :3] / 2, 2 * np.outer(axis, axis) - np.eye(3), atol=1e-5)
    loaded = nib.load(VolumePreprocessing("image").transforms[0]({"image": str(file)})["image"].meta["filename_or_obj"])
    np.testing.assert_allclose(loaded.affine, load_image(file).affine)


def test_a_quaternion_that_is_none_is_refused(tmp_path: Path) -> None:
    file = with_header(written(tmp_path), sform_code=0, qform_code=1, quatern_b=1.5)
    with pytest.raises(InputError, match=r"scan\.nii could not be processed: w2 should be positive"):
        check_header(file)


@pytest.mark.parametrize(("sform_code", "qform_code"), [(4, 1), (3, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_a_template_s_sform_may_scale_and_the_patient_s_place_is_the_qform_s(
    sform_code: int, qform_code: int, shear: float, tmp_path: Path, head: np.ndarray
) -> None:
    nib.save(image(scaled(shear=shear), sform_code, qform_code, head), tmp_path / "t1.nii")
    check_header(tmp_path / "t1.nii")
    np.testing.assert_allclose(load_image(tmp_path / "t1.nii").affine, NATIVE, atol=1e-5)
    loaded = VolumePreprocessing("image").transforms[0]({"image": str(tmp_path / "t1.nii")})["image"]
    np.testing.assert_allclose(loaded.affine, NATIVE, atol=1e-5)


def test_a_lesion_is_measured_in_the_patient_and_the_mask_keeps_the_header(tmp_path: Path, head: np.ndarray) -> None:
    head[20:30, 50:60, 55:65] = 250  # 8 mL
    nib.save(image(scaled(), 4, 1, head.astype(np.int16)), tmp_path / "t1.nii")
    pipeline = VolumePipeline(VolumePreprocessing("image", spacing_mm=2.0, slice_size=96), tmp_path / "out")
    volume = VolumeInput(tmp_path / "t1.nii", "t1")
    prepared = pipeline.prepare(volume)
    result = pipeline.finish(volume, prepared, find_bright(prepared.image.as_tensor()))
    assert result.volume_ml == pytest.approx(8.0, rel=0.05)
    mask = nib.load(tmp_path / "out" / "t1_space-orig_label-L_desc-lesion_mask.nii.gz")
    source = nib.load(tmp_path / "t1.nii")
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "pixdim"):
        assert mask.header[field].tobytes() == source.header[field].tobytes(), field


def test_a_template_without_qform_lies_where_its_sform_says(tmp_path: Path, head: np.ndarray) -> None:
    nib.save(image(scaled(), 4, 0, head), tmp_path / "t1.nii")
    check_header(tmp_path / "t1.nii")
    loaded = VolumePreprocessing("image").transforms[0]({"image": str(tmp_path / "t1.nii")})["image"]
    np.testing.assert_allclose(loaded.affine, scaled(), atol=1e-5)  # MONAI's reader takes the invalid qform


@pytest.mark.parametrize(("sform_code", "qform_code"), [(1, 1), (1, 2), (2, 0), (2, 2)])
def test_two_sizes_of_one_space_contradict_each_other(sform_code: int, qform_code: int, tmp_path: Path) -> None:
    nib.save(image(scaled(), sform_code, qform_code, np.zeros((90, 110, 90), dtype=np.int16)), tmp_path / "t1.nii")
    with pytest.raises(InputError, match=r"has voxels of 2 x 2 x 2 mm by its pixdim and 2\.4 x 2\.4 x 2\.4 mm by its"):
        check_header(tmp_path / "t1.nii")


@pytest.mark.parametrize("qfac", [0.0, 1.0])
def test_a_qform_without_a_hand_is_read_as_the_standard_s_right_one(
    qfac: float, tmp_path: Path, head: np.ndarray
) -> None:
    right = np.array([[2.0, 0, 0, -90], [0, 2, 0, -110], [0, 0, 2, -80], [0, 0, 0, 1]])
    stored = nib.Nifti1Image(head, right)
    stored.set_qform(right, 1)
    nib.save(stored, tmp_path / "t1.nii")
    content = (tmp_path / "t1.nii").read_bytes()
    (tmp_path / "t1.nii").write_bytes(content[:76] + np.float32(qfac).tobytes() + content[80:])  # pixdim[0]
    check_header(tmp_path / "t1.nii")


def test_a_first_voxel_inside_of_the_header_is_refused(tmp_path: Path, head: np.ndarray) -> None:
    for name in ("t1.nii", "t1.nii.gz"):
        nib.save(image(NATIVE, 1, 1, head), tmp_path / name)
    content = (tmp_path / "t1.nii").read_bytes()
    for first in (0, 16, 347):
        (tmp_path / "t1.nii").write_bytes(content[:108] + np.float32(first).tobytes() + content[112:])
        with pytest.raises(InputError, match=r"t1\.nii .*(header is damaged|vox offset)"):
            check_header(tmp_path / "t1.nii")
    check_header(tmp_path / "t1.nii.gz")


@pytest.mark.parametrize(("sform_code", "qform_code"), [(1, 1), (1, 2), (4, 1)])
def test_an_sform_and_a_qform_that_swap_left_and_right_are_refused(
    sform_code: int, qform_code: int, tmp_path: Path, head: np.ndarray
) -> None:
    mirrored = np.diag([-1.0, 1, 1, 1]) @ NATIVE
    nib.save(image(mirrored, sform_code, qform_code, head), tmp_path / "t1.nii")
    with pytest.raises(InputError, match="has left and right swapped between its sform and its qform: one is wrong"):
        check_header(tmp_path / "t1.nii")
    nib.save(image(mirrored, sform_code, 0, head), tmp_path / "t1.nii")  # one that is not valid says nothing
    check_header(tmp_path / "t1.nii")


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_metres_and_micrometres_are_read(unit: str, factor: float, tmp_path: Path, head: np.ndarray) -> None:
    stored = nib.Nifti1Image(head.astype(np.int16), np.diag([factor] * 3 + [1]) @ NATIVE)
    stored.set_qform(stored.affine, 1)
    stored.header.set_xyzt_units(unit)
    nib.save(stored, tmp_path / "t1.nii")
    check_header(tmp_path / "t1.nii")
    loaded = VolumePreprocessing("image").transforms[0]({"image": str(tmp_path / "t1.nii")})["image"]
    np.testing.assert_allclose(loaded.affine, NATIVE, atol=1e-3)
    np.testing.assert_array_equal(loaded, head.astype(np.int16))


def test_millimetres_that_are_called_metres_stay(tmp_path: Path, head: np.ndarray) -> None:
    stored = nib.Nifti1Image(head, NATIVE)
    stored.header.set_xyzt_units("meter")
    nib.save(stored, tmp_path / "t1.nii")
    np.testing.assert_array_equal(load_image(tmp_path / "t1.nii").affine, NATIVE)


@pytest.mark.parametrize("further", [(1,), (1, 1), (1, 1, 1)])
def test_further_axes_of_one_are_left_out(further: tuple, tmp_path: Path, head: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(head.reshape(*head.shape, *further), NATIVE), tmp_path / "t1.nii")
    check_header(tmp_path / "t1.nii")
    loaded = VolumePreprocessing("image").transforms[0]({"image": str(tmp_path / "t1.nii")})["image"]
    np.testing.assert_array_equal(loaded, head)


def test_sizes_that_differ_by_a_hundredth_do_not_turn_the_head(tmp_path: Path, head: np.ndarray) -> None:
    """Only the sform is valid; MONAI's own reader would take the empty qform, in which left is right."""
    nib.save(image(scaled(1.01), 1, 0, head), tmp_path / "t1.nii")
    with_header(tmp_path / "t1.nii", quatern_b=0, quatern_c=0, quatern_d=0)
    loaded = VolumePreprocessing("image").transforms[0]({"image": str(tmp_path / "t1.nii")})["image"]
    np.testing.assert_allclose(loaded.affine, scaled(1.01), atol=1e-4)


@pytest.mark.parametrize("codes", ["LPS", "RPI", "PIR", "SLA"])
def test_a_label_stored_in_another_order_is_told_from_one_that_lies_elsewhere(
    codes: str, write_nifti: WriteNifti
) -> None:
    stored = write_nifti("t1.nii", np.zeros((9, 9, 9), dtype=np.uint8))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    scan = nib.load(stored)
    with pytest.raises(InputError, match=rf"is stored as {codes} and its image t1\.nii as RAS: reorient one like the"):
        check_same_grid("mask.nii", scan.as_reoriented(turn), stored, scan)
    away = scan.affine.copy()
    away[1, 3] += 3.25
    moved = nib.Nifti1Image(np.asarray(scan.dataobj), away)
    with pytest.raises(InputError, match=r"from which it is up to 3\.25 mm away: resample it to the grid of the image"):
        check_same_grid("mask.nii", moved, stored, scan)
