"""What the tests share: a synthetic head, NIfTI files made of arrays, the folder of real images and its series."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.simulate import Head, load_head
from bundle.mni import TEMPLATE
from tests.suites import pytest_configure, pytest_runtest_makereport  # noqa: F401

WriteNifti = Callable[..., Path]


def ellipsoid(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Boolean ellipsoid, all in voxels."""
    grid = np.meshgrid(*(np.arange(extent) for extent in shape), indexing="ij")
    distance: np.ndarray = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
    return distance <= 1


@cache
def _head() -> np.ndarray:
    shape, centre = (88, 108, 100), (40, 52, 58)
    image = np.zeros(shape, dtype=np.float32)
    image[ellipsoid(shape, (40, 40, 15), (20, 22, 30))] = 60  # neck, behind
    image[ellipsoid(shape, (40, 98, 32), (6, 9, 8))] = 80  # nose, below the brain
    for radii, value in (
        ((34, 43, 38), 90),  # scalp
        ((32, 41, 36), 15),  # skull
        ((30, 39, 34), 70),  # grey matter
        ((26, 35, 30), 110),  # white matter
    ):
        image[ellipsoid(shape, centre, radii)] = value
    image[ellipsoid(shape, (40, 52, 60), (8, 14, 6))] = 20  # ventricles
    return image


@cache
def _textured_head() -> np.ndarray:
    texture = np.random.default_rng(0).integers(-2, 3, _head().shape)
    return np.where(_head() > 0, _head() + texture, 0).astype(np.float32)


@pytest.fixture
def even_head() -> np.ndarray:
    """A T1w-like head at 2 mm in RAS, (88, 108, 100), off-centre; the brain's centre is voxel (40, 52, 58)."""
    return _head().copy()


@pytest.fixture
def head() -> np.ndarray:
    """The same with a texture: even areas are refused as a map of tissue codes."""
    return _textured_head().copy()


@pytest.fixture
def write_nifti(tmp_path: Path) -> WriteNifti:
    """Writes ``array`` to ``tmp_path / name``; voxels of 2 mm unless an affine is given."""

    def write(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine), path)
        return path

    return write


@pytest.fixture(scope="session")
def template_head() -> Head:
    """The MNI template with its tissues, on the ATLAS grid; it has no skull. Not to be written to."""
    return load_head(str(TEMPLATE))


@pytest.fixture(scope="session")
def block_head(template_head: Head) -> Head:
    """A part of it, 90 x 110 x 80 mm with the ventricles in it, in which procedural cases are quick."""
    part = np.s_[60:150, 70:180, 60:140]
    assert template_head.image is not None
    return Head("block.nii.gz", template_head.tissue[part].copy(), image=template_head.image[part].copy())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real images of ../shared/data are not here")
    return path


@pytest.fixture(scope="session")
def real_series(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a child's sagittal head, 192 slices of 256 x 256; not to be written to."""
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(shared_data / "dicom" / "fnndsc_t1_sagittal.zip") as archive:
        archive.extractall(folder)
    (series,) = {file.parent for file in folder.rglob("*.dcm")}
    return series
