"""Results on the grid of their source, bit for bit, written atomically."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from bundle.transforms import SourceGridWriter

SHAPE = (5, 6, 7)
GEOMETRY = (
    "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units",
)  # fmt: skip
OBLIQUE = nib.affines.from_matvec(euler2mat(0.2, -0.1, 0.3) @ np.diag([-0.9, 1.1, 2.5]), [10.3, -20.7, 31.1])
SHEARED = OBLIQUE.copy()
SHEARED[0, 2] += 0.4


def mask() -> np.ndarray:
    """About half of the voxels are 1."""
    return (np.random.default_rng(0).random(SHAPE) > 0.5).astype(np.uint8)


def source(folder: Path, kind: type = nib.Nifti1Image, sform_code: int = 1, qform_code: int = 1) -> Path:
    """An int16 file with these codes; code 0 leaves the other form alone to say where it lies."""
    image = kind(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), None)
    image.set_qform(OBLIQUE, qform_code)
    image.set_sform(SHEARED if qform_code == 0 else OBLIQUE, sform_code)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, folder / "brain.nii.gz")
    return folder / "brain.nii.gz"


def write(source_file: Path, array: np.ndarray, name: str = "mask.nii.gz", dtype: type = np.uint8) -> Path:
    """Writes an array on the grid of a source, as MONAI's SaveImage does; the result is beside it."""
    writer = SourceGridWriter(output_dtype=dtype)
    writer.set_data_array(array, channel_dim=None)
    writer.set_metadata({"filename_or_obj": str(source_file)}, resample=False)
    target = source_file.parent / "results" / name
    writer.write(target)
    return target


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(("sform_code", "qform_code"), [(0, 1), (2, 0), (2, 1), (1, 2), (4, 3), (1, 1), (0, 0)])
def test_the_geometry_of_the_header_is_kept_bit_for_bit(
    sform_code: int, qform_code: int, kind: type, tmp_path: Path
) -> None:
    file = source(tmp_path, kind, sform_code, qform_code)
    before, after = nib.load(file), nib.load(write(file, mask()))
    assert type(after) is kind
    for field in GEOMETRY:
        assert before.header[field].tobytes() == after.header[field].tobytes(), field
    assert before.header["pixdim"][:4].tobytes() == after.header["pixdim"][:4].tobytes()
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(np.asanyarray(after.dataobj), mask())
    assert after.get_data_dtype() == np.uint8


def test_a_mgz_source_gives_a_nifti_with_the_same_affine(tmp_path: Path) -> None:
    file = tmp_path / "brain.mgz"
    nib.save(nib.MGHImage(np.zeros(SHAPE, dtype=np.float32), OBLIQUE.astype(np.float32)), file)
    after = nib.load(write(file, mask()))
    assert isinstance(after, nib.Nifti1Image)
    np.testing.assert_allclose(after.affine, nib.load(file).affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(after.dataobj), mask())


def test_a_source_with_a_fourth_axis_of_one_gives_a_3d_mask(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 1), dtype=np.int16), OBLIQUE), tmp_path / "brain.nii.gz")
    after = nib.load(write(tmp_path / "brain.nii.gz", mask()))
    assert after.shape == SHAPE
    np.testing.assert_allclose(after.affine, OBLIQUE, atol=1e-5)


def test_the_sources_scaling_window_and_intent_do_not_reach_the_mask(tmp_path: Path) -> None:
    file = source(tmp_path)
    image = nib.load(file)
    image = nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    image.header.set_slope_inter(0.01, 5)
    image.header["cal_max"] = 4000
    image.header.set_intent("t test", (10,))
    nib.save(image, file)
    assert nib.load(file).get_fdata().min() == 5  # the source is scaled
    after = nib.load(write(file, mask()))
    assert set(np.unique(after.get_fdata())) == {0.0, 1.0}
    assert after.header["cal_max"] == 0
    assert after.header.get_intent()[0] == "none"


def test_a_probability_keeps_its_values(tmp_path: Path) -> None:
    probability = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    after = nib.load(write(source(tmp_path), probability, dtype=np.float32))
    assert after.get_data_dtype() == np.float32
    assert np.array_equal(np.asanyarray(after.dataobj), probability)


def test_an_array_on_another_grid_is_refused(tmp_path: Path) -> None:
    file = source(tmp_path)
    with pytest.raises(ValueError, match=r"The result is \(5, 6, 6\), its source .*brain\.nii\.gz \(5, 6, 7\)"):
        write(file, mask()[..., :-1])
    assert not list(file.parent.rglob("*mask*"))


def test_a_failing_write_leaves_the_old_mask_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = source(tmp_path)
    target = write(file, mask())
    old = target.read_bytes()

    def full_disk(image: nib.Nifti1Image, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(nib, "save", full_disk)
    for name in ("mask.nii.gz", "other.nii.gz"):
        with pytest.raises(OSError, match="No space left on device"):
            write(file, 1 - mask(), name)
    assert target.read_bytes() == old
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_free_texts_of_the_source_do_not_reach_the_mask(kind: type, tmp_path: Path) -> None:
    file = source(tmp_path, kind)
    image = kind(np.asarray(nib.load(file).dataobj), None, nib.load(file).header)
    for field in ("descrip", "aux_file", "intent_name", *(["db_name"] if kind is nib.Nifti1Image else [])):
        image.header[field] = b"Doe^Jane"
    for code in ("comment", "dicom", "afni"):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, b"Doe^Jane, 1950-01-01"))
    nib.save(image, file)
    assert b"Doe" in gzip.decompress(file.read_bytes())
    assert b"Doe" not in gzip.decompress(write(file, mask()).read_bytes())
