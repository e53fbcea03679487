"""Heads for a cluster, and what one machine alone makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_to_output

from tests.cluster.machines import segmenting

SPACINGS_MM = (3.0, 3.2, 3.4, 3.6, 3.8, 4.0, 4.2, 4.4)
JUNK = "junk.nii.gz"


class Local(NamedTuple):
    """A run on one machine."""

    output: Path
    code: int
    told: str


@pytest.fixture(scope="session")
def scans(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real stroke in coarse voxels of 8 sizes, and a text that claims to be a volume."""
    folder = tmp_path_factory.mktemp("scans")
    stroke = nib.load(shared_data / "t1_stroke" / "arc_sub-M2017_T1w_nomask.nii.gz")
    for size_mm in SPACINGS_MM:
        coarse = resample_to_output(stroke, size_mm, order=1)
        head = nib.Nifti1Image(np.asarray(coarse.dataobj).round().astype(np.int16), coarse.affine)
        head.set_sform(head.affine, 1)
        nib.save(head, folder / f"head_{size_mm:g}_mm.nii.gz")
    (folder / JUNK).write_text("patient,age\n")
    return folder


@pytest.fixture(scope="session")
def local(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Local:
    output = tmp_path_factory.mktemp("local")
    process = segmenting(scans, output)
    told = process.communicate(timeout=900)[0]
    return Local(output, process.returncode, told)
