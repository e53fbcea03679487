"""Heads for a cluster, and what one machine alone makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_to_output

from bundle.files import bundle_root
from tests.cluster.machines import Machines, segmenting

SPACINGS_MM = (3.0, 3.4, 3.8, 4.0, 4.2, 4.6)
JUNK = "junk.nii.gz"


class Scans(NamedTuple):
    """A folder of coarse heads with one file that is none, and weights to segment them with."""

    folder: Path
    weights: Path


class Local(NamedTuple):
    """A run on one machine."""

    output: Path
    code: int
    told: str


@pytest.fixture(scope="session")
def scans(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Scans:
    """A real stroke in voxels of 6 sizes. The weights are the shipped ones on a coarser grid, to be quick."""
    folder, models = tmp_path_factory.mktemp("scans"), tmp_path_factory.mktemp("models")
    stroke = nib.load(shared_data / "t1_stroke" / "arc_sub-M2017_T1w_nomask.nii.gz")
    for size_mm in SPACINGS_MM:
        coarse = resample_to_output(stroke, size_mm, order=1)
        head = nib.Nifti1Image(np.asarray(coarse.dataobj).round().astype(np.int16), coarse.affine)
        head.set_sform(head.affine, 1)
        nib.save(head, folder / f"head_{size_mm:g}_mm.nii.gz")
    (folder / JUNK).write_text("patient,age\n")
    shipped = Path(bundle_root()) / "models" / "model.pt"
    weights = Path(shutil.copy(shipped, models))
    settings = json.loads(shipped.with_suffix(".json").read_text())
    coarser = {"spacing_mm": 3.0, "box_mm": 288.0, "space": "native"}
    weights.with_suffix(".json").write_text(json.dumps(settings | coarser))
    return Scans(folder, weights)


@pytest.fixture(scope="session")
def local(scans: Scans, tmp_path_factory: pytest.TempPathFactory) -> Local:
    output = tmp_path_factory.mktemp("local")
    process = segmenting(*scans, output)
    told = process.communicate(timeout=1800)[0]
    return Local(output, process.returncode, told)


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """The first machine of a cluster, which takes one volume at a time."""
    with Machines() as started:
        yield started
