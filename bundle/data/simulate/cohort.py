"""Simulated cases as files, written by several processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from bundle.data.simulate.case import SimulatedCase
from bundle.files import read_json, replacing, write_json
from bundle.mni import atlas_grid
from bundle.processes import begin_worker

__all__ = ["write_cases"]

# The white matter mode as an integer, so that images are stored as int16.
_WHITE_MATTER = 1000

_cases: Sequence[SimulatedCase]


def write_cases(cases: Sequence[SimulatedCase], folder: Path, workers: int, keep: bool = False) -> list[dict[str, Any]]:
    """Write ``images/sim_0000.nii.gz``, ``labels/sim_0000.nii.gz``, ``records/sim_0000.json`` and so on to a folder.

    Args:
        cases: of :class:`bundle.data.simulate.SimulatedCases`.
        folder: where to write.
        workers: processes.
        keep: leave a case whose record is there as it is.

    Returns:
        the records, in the order of the cases.
    """
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (cases,)) as pool:
        records = pool.map(partial(_write_case, folder=folder, keep=keep), range(len(cases)))
        return list(tqdm(records, desc="cases", total=len(cases)))


def _begin(cases: Sequence[SimulatedCase]) -> None:
    global _cases
    _cases = cases
    begin_worker()


def _write_case(number: int, folder: Path, keep: bool) -> dict[str, Any]:
    name = f"sim_{number:04d}"
    file = folder / "records" / f"{name}.json"
    if keep and file.exists():
        return read_json(file)
    case = _cases[number]
    image = np.round(case.image * _WHITE_MATTER).clip(0, 32767).astype(np.int16)
    for kind, voxels in (("images", image), ("labels", case.label)):
        with replacing(folder / kind / f"{name}.nii.gz") as unfinished:
            nib.save(nib.Nifti1Image(voxels, atlas_grid()[0]), unfinished)
    record = {"name": name, **case.record}
    write_json(record, file)
    return record
