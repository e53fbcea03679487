"""Files that are refused by their header, each with its own sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.checks import CheckLabeld
from bundle.errors import InputError
from bundle.headers import check_header

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def written(
    folder: Path, shape: tuple[int, ...] = (90, 110, 90), spacing_mm: float | tuple = 2.0, kind: object = np.int16
) -> Path:
    """A volume of zeros."""
    affine = np.diag([*np.broadcast_to(spacing_mm, 3), 1.0])
    image = nib.Nifti1Image(np.zeros(shape, dtype=kind), affine)
    nib.save(image, folder / "scan.nii")
    return folder / "scan.nii"


def with_header(file: Path, **fields: object) -> Path:
    """The file with fields of its header overwritten, without any checks."""
    content = bytearray(file.read_bytes())
    header = np.ndarray((), nib.Nifti1Header.template_dtype, buffer=content)
    for name, value in fields.items():
        header[name] = value
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((181, 217, 181), 1.0), ((256, 256, 24), (0.9, 0.9, 6.0)), ((91, 109, 91, 1), 2.0), ((512, 512, 400), 0.45)],
)
def test_heads_pass(shape: tuple, spacing_mm: float | tuple, tmp_path: Path) -> None:
    check_header(written(tmp_path, shape, spacing_mm, np.uint8))


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "kind", "sentence"),
    [
        ((90, 110, 90, 3), 2.0, np.int16, "holds 3 volumes (4D): one 3D volume is expected."),
        ((90, 110), 2.0, np.int16, "has shape (90, 110): one 3D volume is expected."),
        ((90, 110, 1), 2.0, np.int16, "has shape (90, 110, 1): one 3D volume is expected."),
        ((90, 110, 90), 2.0, RGB, "has colours (RGB): an image with one number per voxel is expected."),
        (
            (90, 110, 90),
            2.0,
            np.complex64,
            "has complex64 voxels: an image of integers or real numbers is expected.",
        ),
        ((256, 256, 7), (1, 1, 5.0), np.int16, "has 7 slices: a head of at least 8 is expected."),
        ((256, 256, 20), (1, 1, 7.5), np.int16, "has slices of 7.5 mm: 6 mm or less are expected."),
        ((60, 110, 90), 1.0, np.int16, "covers 60 x 110 x 90 mm: a whole brain, at least 80 mm each way, is expected."),
        (
            (300, 110, 90),
            2.0,
            np.int16,
            "covers 600 x 220 x 180 mm: a single head, at most 512 mm each way, is expected.",
        ),
    ],
)
def test_a_file_that_cannot_be_a_head_is_refused(
    shape: tuple, spacing_mm: float | tuple, kind: object, sentence: str, tmp_path: Path
) -> None:
    file = written(tmp_path, shape, spacing_mm, kind)
    with pytest.raises(InputError) as error:
        check_header(file)
    assert str(error.value) == f"{file} {sentence}"


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_voxels_without_a_valid_size_are_refused(size: float, tmp_path: Path) -> None:
    file = with_header(written(tmp_path), pixdim=[1, 2, 2, size, 0, 0, 0, 0])
    with pytest.raises(InputError, match=r"scan\.nii (has voxels of 2 x 2 x \S+ mm: its header is damaged|could not)"):
        check_header(file)


def test_a_file_without_orientation_is_refused(tmp_path: Path) -> None:
    file = with_header(written(tmp_path), sform_code=0, qform_code=0)
    with pytest.raises(InputError, match=r"does not give its orientation .* left and right could be swapped"):
        check_header(file)


def test_a_singular_affine_is_refused(tmp_path: Path) -> None:
    file = with_header(written(tmp_path), sform_code=1, qform_code=0, srow_z=[0, 0, 0, 5])
    with pytest.raises(InputError, match=r"has an affine that cannot be inverted: its header is damaged\.$"):
        check_header(file)


def test_too_many_voxels_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """A header of a hundred thousand million voxels before a few bytes."""
    file = with_header(written(tmp_path), dim=[3, 5000, 5000, 4000, 1, 1, 1, 1], pixdim=[1, 0.1, 0.1, 0.1, 0, 0, 0, 0])
    file = with_header(file, sform_code=0, qform_code=1)
    with pytest.raises(InputError, match=r"has 100000 million voxels: at most 134 million are read"):
        check_header(file)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.nii.gz", b"", r"empty\.nii\.gz is empty \(0 bytes\): copy or export it again\.$"),
        ("text.nii", b"this is no image" * 99, r"text\.nii is not an image that can be read|could not be processed"),
        ("cut.nii.gz", gzip.compress(b"\0" * 5000, mtime=0)[:20], r"cut\.nii\.gz is a damaged gzip file"),
    ],
)
def test_a_file_that_is_not_a_volume_is_refused(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        check_header(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/gone\.nii does not exist\.$"):
        check_header(tmp_path / "gone.nii")


def test_axes_that_are_nearly_parallel_are_refused(tmp_path: Path) -> None:
    affine = np.array([[2.0, 1.9, 0, 0], [0, 0.6, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    file = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.zeros((90, 110, 90), dtype=np.int16), affine), file)
    with pytest.raises(InputError, match="has axes that are far from right angles"):
        check_header(file)


def test_contradicting_voxel_sizes_are_refused(tmp_path: Path) -> None:
    file = with_header(written(tmp_path), pixdim=[1, 2, 2, 2.5, 0, 0, 0, 0])
    with pytest.raises(InputError, match=r"has voxels of 2 x 2 x 2\.5 mm by its pixdim and 2 x 2 x 2 mm by its affine"):
        check_header(file)


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        (nib.AnalyzeImage, "scan.img", r"is of the kind \w*AnalyzeImage, which does not say where left is: NIfTI"),
        (nib.Spm99AnalyzeImage, "scan.img", r"is of the kind \w*AnalyzeImage, which does not say where left is: NIfTI"),
        (nib.Spm2AnalyzeImage, "scan.img", r"is of the kind \w*AnalyzeImage, which does not say where left is: NIfTI"),
        (nib.Nifti1Pair, "scan.img", r"is of the kind Nifti1Pair.*: NIfTI in one file"),
    ],
)
def test_a_format_without_orientation_in_one_file_is_refused(
    kind: type, name: str, sentence: str, tmp_path: Path
) -> None:
    nib.save(kind(np.zeros((90, 110, 90), dtype=np.int16), np.diag([2.0, 2, 2, 1])), tmp_path / name)
    with pytest.raises(InputError, match=sentence):
        check_header(tmp_path / name)


@pytest.mark.parametrize("bad", [0.5, -1.0, float("nan"), float("inf")])
def test_a_label_of_other_values_than_a_mask_s_is_refused(bad: float) -> None:
    label = torch.zeros(1, 4, 4, 4)
    label[0, 1, 1, :2] = bad
    with pytest.raises(InputError, match=r"label has 2 voxels such as .*: a mask of 0 and 1 is expected"):
        CheckLabeld("label")({"label": label})


@pytest.mark.parametrize("lesion", [1.0, 2.0, 255.0])
def test_a_mask_of_whole_numbers_becomes_one_of_0_and_1(lesion: float) -> None:
    label = torch.zeros(1, 4, 4, 4)
    label[0, 1] = lesion
    found = CheckLabeld("label")({"label": label})["label"]
    assert torch.equal(found, (label > 0).float())
