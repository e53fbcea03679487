"""Fixtures of the SDK's tests: the packaged bundle, and a DICOM series with a lesion."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine

from bundle.data.simulate import Head, simulate_case
from bundle.files import bundle_root
from bundle.mni import atlas_grid
from scripts.package import write_package

# Without the SDK its tests would fail to be collected.
if find_spec("monai.deploy") is None:
    collect_ignore = ["test_deploy.py"]


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """The folder of the package of this repository, a fresh copy for each test."""
    return write_package(Path(bundle_root()), tmp_path / "package")[0]


@pytest.fixture(scope="session")
def lesioned_series(real_series: Path, template_head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNI head with 35 mL of simulated lesion: 189 axial slices of 1 mm, under the headers of the real series.

    Its intensities are fractions, as Philips stores them, and the first slices are air.
    """
    import pydicom
    from pydicom.uid import generate_uid

    affine, shape = atlas_grid()
    image = simulate_case(template_head, np.random.default_rng(1), volume_ml=35.0).image
    voxels = np.round(1000 * image.clip(min=0)).astype(np.uint16)
    folder, uid = tmp_path_factory.mktemp("lesioned"), generate_uid()
    one = pydicom.dcmread(next(real_series.iterdir()))
    one.remove_private_tags()
    one.SeriesInstanceUID, one.SeriesNumber, one.SeriesDescription = uid, 7, "T1 simulated"
    one.Rows, one.Columns = shape[1], shape[0]
    one.PixelSpacing, one.SliceThickness = [1, 1], 1
    one.RescaleSlope, one.RescaleIntercept = 2**-10, 0
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]  # rows run to the left, columns to the back
    for height in range(shape[2]):
        right, front, up = apply_affine(affine, (shape[0] - 1, shape[1] - 1, height))
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.InstanceNumber, one.SliceLocation = height + 1, up
        one.ImagePositionPatient = [-right, -front, up]
        one.PixelData = np.ascontiguousarray(voxels[::-1, ::-1, height].T).tobytes()
        one.save_as(folder / f"{height:03}.dcm")
    return folder
