"""Nothing of the free texts of NIfTI and MGH headers gets into any file of OUTPUT."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import _textured_head as synthetic_head
from tests.scripts.privacy import files_with_secrets, secrets_in
from tests.scripts.test_segment import segment

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
TEXTS = ("descrip", "aux_file", "intent_name", "data_type", "db_name")


def nifti(kind: type, folder: Path, name: str) -> None:
    """A head with secrets in every text of its header, in extensions, and as the name that gzip keeps."""
    image = kind(synthetic_head()[:, :, 40:80].astype(np.int16), AFFINE)
    image.set_sform(AFFINE, 1)
    header = image.header
    for number, text in enumerate(text for text in TEXTS if text in header):
        header[text] = f"SECRET{number}".encode()
    header.extensions += [nib.nifti1.Nifti1Extension(code, b"SECRET90 name") for code in ("comment", "afni", 0)]
    with (folder / name).open("wb") as stream, gzip.GzipFile("SECRET91.nii", "wb", fileobj=stream) as packed:
        packed.write(image.to_bytes())


def mgh(folder: Path, name: str) -> None:
    """A head with secrets in the unused bytes of its header and in the tags behind the voxels."""
    image = nib.MGHImage(synthetic_head()[:, :, 40:80].astype(np.float32), AFFINE)
    content = bytearray(image.to_bytes())
    content[100:110] = b"SECRET92  "
    (folder / name).write_bytes(gzip.compress(bytes(content) + b"\0\0\0\x03\0\0\0\0\0\0\0\x20mri_convert SECRET93.mgz"))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    nifti(nib.Nifti1Image, folder, "one.nii.gz")
    nifti(nib.Nifti2Image, folder, "two.nii.gz")
    mgh(folder, "three.mgz")
    nifti(nib.Nifti1Image, folder, "refused.nii.gz")
    refused = nib.load(folder / "refused.nii.gz")
    flat = nib.Nifti1Image(np.zeros((60, 60, 4), np.int16), AFFINE, refused.header)
    nib.save(flat, folder / "refused.nii.gz")
    assert all(secrets_in(file) for file in folder.iterdir())
    return folder


def test_the_command_writes_no_text_of_a_header(scans: Path, tmp_path: Path) -> None:
    done = segment(scans, tmp_path, probability=True, uncertainty=True, views=True)
    assert done.returncode == 1  # of the refused one
    assert len(list(tmp_path.glob("*_mask.nii.gz"))) == len(list(tmp_path.glob("views/*.html"))) == 3
    assert files_with_secrets(tmp_path) == {}
    assert "SECRET" not in done.stdout + done.stderr
    for mask in tmp_path.glob("*.nii.gz"):
        header = nib.load(mask).header
        assert header.extensions == []
        for text in TEXTS:
            assert text not in header or not header[text].item(), (mask, text)
