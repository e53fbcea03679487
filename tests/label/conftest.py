"""What the tests of MONAI Label share: a head with a simulated stroke, in MNI space and as scanned, and a server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from nibabel.processing import resample_from_to

from bundle.data.simulate import Head, simulate_case
from bundle.mni import atlas_grid
from scripts.package import write_package
from tests.label.server import BIN, LabelServer
from tests.package.conftest import ROOT

BundleRun = Callable[..., nib.Nifti1Image]

# A scanner's world: the head is turned, tilted, and off the centre.
_TO_SCANNER = nib.affines.from_matvec(euler2mat(0.05, 0.1, -0.12), [12.0, -25.0, 31.0])


def write_case(head: Head, seed: int, folder: Path) -> None:
    """A case with 35 mL of lesion, voxels of 2 mm: image and label in MNI space; the image as a scanner stores it."""
    case = simulate_case(head, np.random.default_rng(seed), volume_ml=35.0)
    fine, (affine, shape) = atlas_grid()[0], atlas_grid(2.0)
    image, label = (
        resample_from_to(nib.Nifti1Image(array, fine), (shape, affine), order=order)
        for array, order in ((np.float32(1000 * case.image), 1), (case.label, 0))
    )
    whole = nib.Nifti1Image(np.asarray(image.dataobj).round().astype(np.int16), affine)
    nib.save(whole, folder / "mni.nii.gz")
    nib.save(label, folder / "label.nii.gz")
    scanned = nib.Nifti1Image(np.asarray(whole.dataobj)[::-1, ::-1], affine @ _flipped(shape))
    nib.save(nib.Nifti1Image(scanned.dataobj, _TO_SCANNER @ scanned.affine), folder / "scanner.nii.gz")


def _flipped(shape: tuple[int, ...]) -> np.ndarray:
    """Voxels stored from right to left and from front to back, to those from left to right and from back to front."""
    return nib.affines.from_matvec(np.diag([-1, -1, 1]), [shape[0] - 1, shape[1] - 1, 0])


@pytest.fixture(scope="session")
def case(template_head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``mni.nii.gz``, its ``label.nii.gz`` and ``scanner.nii.gz``."""
    folder = tmp_path_factory.mktemp("case")
    write_case(template_head, 1, folder)
    return folder


@pytest.fixture(scope="module")
def server(case: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server of each module's own, whose studies are ``mni`` and ``scanner``; training changes its weights."""
    folder = tmp_path_factory.mktemp("label")
    (folder / "studies").mkdir()
    for name in ("mni.nii.gz", "scanner.nii.gz"):
        (folder / "studies" / name).write_bytes((case / name).read_bytes())
    packaged, _ = write_package(ROOT, folder)
    made = LabelServer(folder, packaged, folder / "studies")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def bundle_run(server: LabelServer, tmp_path: Path) -> BundleRun:
    """The mask that ``monai.bundle run`` of the server's own copy gives of one of its images.

    In the server's environment: another NumPy registers a head up to 0.01 mm beside, which changes a voxel.
    """

    def run(image: str, *options: str) -> nib.Nifti1Image:
        words = [str(BIN / "python"), "-m", "monai.bundle", "run", "--backend", "torch", *options]
        words += ["--config_file", str(server.bundle / "configs" / "inference.json"), "--output_dir", str(tmp_path)]
        words += ["--dataset_dir", str(server.studies / f"{image}.nii.gz")]
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert ended.returncode == 0, ended.stderr
        return nib.load(tmp_path / f"{image}_lesion.nii.gz")

    return run
