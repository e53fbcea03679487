"""A head that is registered in another process while torch is imported lies where it would lie otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from bundle.early_registration import EarlyRegistration
from bundle.files import bundle_root
from bundle.mni import TEMPLATE
from bundle.transforms import VolumePreprocessing
from bundle.volumes import find_volumes


def save_head(file: Path, codes: str, dtype: type, slope: float = 1.0, offset: float = 0.0) -> Path:
    """The template at 2 mm, turned by its header, in an orientation and in a type of voxels."""
    head = nib.load(TEMPLATE).slicer[::2, ::2, ::2]
    turn = from_matvec(Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix(), (12, 30, -9))
    voxels = np.asanyarray(head.dataobj).astype(np.float32)
    voxels = ((voxels / voxels.max() * 800 - offset) / slope).astype(dtype)
    image = nib.Nifti1Image(voxels, turn @ head.affine)
    to_codes = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    image = image.as_reoriented(to_codes)
    image.header.set_slope_inter(slope, offset)
    nib.save(image, file)
    return file


@pytest.mark.parametrize(
    ("name", "codes", "dtype", "slope", "offset"),
    [
        ("plain.nii.gz", "RAS", np.int16, 1.0, 0.0),
        ("scaled.nii", "LPI", np.int16, 0.37, 0.0),
        ("float.nii.gz", "AIR", np.float32, 1.0, 0.0),
        ("an offset.nii.gz", "PSL", np.int16, 1.0, -500.0),
    ],
)
def test_it_is_the_registration_of_the_preprocessing(
    name: str, codes: str, dtype: type, slope: float, offset: float, tmp_path: Path
) -> None:
    file = save_head(tmp_path / name, codes, dtype, slope, offset)
    early = EarlyRegistration(file).result()
    late = VolumePreprocessing("image", spacing_mm=4.0, slice_size=48, space="mni")({"image": str(file)})["image"]
    assert early is not None
    np.testing.assert_array_equal(early.affine, late.meta["to_mni"])
    assert early.similarity == late.meta["mni_similarity"] > 0.5


def test_it_is_of_the_volume_that_the_batch_finds_however_the_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    save_head(tmp_path / "head.nii.gz", "RAS", np.int16)
    monkeypatch.chdir(tmp_path / "here")
    (volume,) = find_volumes("../here/../head.nii.gz", tmp_path / "out")
    assert EarlyRegistration(Path("../here/../head.nii.gz")).file == volume.file


def test_the_preprocessing_takes_it(tmp_path: Path) -> None:
    file = save_head(tmp_path / "head.nii.gz", "RAS", np.int16)
    early = EarlyRegistration(file).result()
    assert early is not None
    shifted = early._replace(affine=from_matvec(np.eye(3), (0, 0, 7)) @ early.affine)
    preprocessing = VolumePreprocessing("image", spacing_mm=4.0, slice_size=48, space="mni")
    moved = preprocessing({"image": str(file), "early_registration": lambda: shifted})["image"]
    np.testing.assert_array_equal(moved.meta["to_mni"], shifted.affine)


@pytest.mark.parametrize("content", [b"", b"no image" * 100, b"\x1f\x8b" + b"\0" * 100])
def test_what_is_no_image_comes_to_no_result_and_says_nothing(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scan.nii.gz"
    file.write_bytes(content)
    assert EarlyRegistration(file).result() is None
    assert capfd.readouterr() == ("", "")


def test_libraries_that_a_segmentation_does_not_use_are_not_loaded_and_can_be_imported_afterwards() -> None:
    program = """
import json, sys
from bundle.lean_imports import lean_imports
with lean_imports():
    import bundle.segmenter
unused = ["scipy.signal", "sklearn", "matplotlib.pyplot", "itk", "torch.distributed.fsdp"]
print(json.dumps([name for name in unused if name in sys.modules]))
import itk, matplotlib.pyplot, scipy.signal, sklearn.linear_model
from torch.distributed.optim import ZeroRedundancyOptimizer
assert ZeroRedundancyOptimizer.__module__ != "bundle.lean_imports" and callable(scipy.signal.hilbert)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=bundle_root(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
