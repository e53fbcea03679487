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
from bundle.errors import InputError
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
        keep: leave a case whose image, label and record are there as it is.

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
    image, label = (folder / kind / f"{name}.nii.gz" for kind in ("images", "labels"))
    file = folder / "records" / f"{name}.json"
    if keep and image.is_file() and label.is_file() and (earlier := _whole_record(file, name)):
        return earlier
    case = _cases[number]
    scan = np.round(case.image * _WHITE_MATTER).clip(0, 32767).astype(np.int16)
    for path, voxels in ((image, scan), (label, case.label)):
        with replacing(path) as unfinished:
            nib.save(nib.Nifti1Image(voxels, atlas_grid()[0]), unfinished)
    record = {"name": name, **case.record}
    write_json(record, file)
    return record


def _whole_record(file: Path, name: str) -> dict[str, Any] | None:
    """Return the record of a case, or None if there is none, or it has been damaged since it was written."""
    try:
        record = read_json(file)
    except InputError:
        return None
    whole = isinstance(record, dict) and record.get("name") == name and isinstance(record.get("volume_ml"), int | float)
    return record if whole else None
