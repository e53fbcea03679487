"""What the simulator's tests share: two real heads, masks of known volume, some cases of the size of ATLAS."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.simulate import Head, LesionMasks, SimulatedCase, load_head, simulate_case
from bundle.data.simulate.anatomy import widen_fluid_spaces
from bundle.data.simulate.lesions import box_of
from bundle.data.simulate.tissues import Tissue
from tests.conftest import ellipsoid

BANK_ML = np.geomspace(0.3, 120, 48)
"""Volumes of the masks of :func:`bank`."""


@pytest.fixture(scope="session")
def whole_head(shared_data: Path) -> Head:
    """Colin27, which is in MNI space already, with its skull, face and neck."""
    return load_head(str(shared_data / "t1_healthy" / "colin27_ch2.nii.gz"))


@pytest.fixture(scope="session")
def label_head(shared_data: Path) -> Head:
    """A subject's tissue label map, registered."""
    return load_head(str(shared_data / "label_maps" / "training_seg_01.nii.gz"))


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> LesionMasks:
    """Ellipsoids of rising volume in the left hemisphere, from 20 mm above the commissures on."""
    folder = tmp_path_factory.mktemp("masks")
    files = []
    for number, volume_ml in enumerate(BANK_ML):
        radius = (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
        extent = int(2.6 * radius) + 3
        radii = tuple(radius * share for share in (1 / 1.25, 1.25, 1.0))
        mask = ellipsoid((extent,) * 3, ((extent - 1) / 2,) * 3, radii).astype(np.uint8)
        affine = np.eye(4)
        affine[:3, 3] = np.array([-32, -20, 25]) - extent // 2
        files.append(folder / f"mask_{number:02d}.nii.gz")
        nib.save(nib.Nifti1Image(mask, affine), files[-1])
    return LesionMasks([str(file) for file in files], progress=False)


@pytest.fixture(scope="session")
def cases_ml() -> tuple[float, ...]:
    """Volumes asked for in :func:`lesioned`."""
    return (1.0, 4.0, 12.0, 30.0, 60.0, 100.0)


@pytest.fixture(scope="session")
def lesioned(
    template_head: Head, bank: LesionMasks, cases_ml: tuple[float, ...]
) -> list[tuple[SimulatedCase, np.ndarray, np.ndarray]]:
    """Cases of each volume, each with the label before the ventricles were widened, and the tissue afterwards."""
    box = box_of(template_head.tissue >= Tissue.CSF, 4)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def widen(
        image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator, lesion: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        widened = widen_fluid_spaces(image, tissue, rng, lesion)
        seen.append((lesion.copy(), widened[1].copy()))
        return widened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bundle.data.simulate.case.widen_fluid_spaces", widen)
        made = [
            simulate_case(template_head, np.random.default_rng(number), bank, volume_ml)
            for number, volume_ml in enumerate(cases_ml)
        ]
    result = []
    for case, (lesion, tissue_in_box) in zip(made, seen, strict=True):
        before, tissue = np.zeros(case.label.shape, dtype=bool), template_head.tissue.copy()
        before[box], tissue[box] = lesion, tissue_in_box
        result.append((case, before, tissue))
    return result
