"""The same command completes a cohort: missing or damaged parts of a case are written again, the rest is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bundle.data.simulate.case import SimulatedCase
from bundle.data.simulate.cohort import write_cases
from bundle.mni import atlas_grid


def cases() -> list[SimulatedCase]:
    shape = atlas_grid()[1]
    image, label = np.ones(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint8)
    return [SimulatedCase(image, label, {"head": f"{number}.nii", "volume_ml": 0.0}) for number in range(6)]


def test_what_is_missing_of_a_case_is_made_anew(tmp_path: Path) -> None:
    expected = write_cases(cases(), tmp_path, workers=1)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("sim_*")}
    assert len(before) == 3 * 6
    for file in ("images/sim_0001.nii.gz", "labels/sim_0002.nii.gz", "records/sim_0003.json"):
        (tmp_path / file).unlink()
    (tmp_path / "records" / "sim_0004.json").write_text("[]")
    (tmp_path / "records" / "sim_0005.json").write_text('{"name": "sim_0005", "vol')
    assert write_cases(cases(), tmp_path, workers=1, keep=True) == expected
    assert {file: file.read_bytes() for file in before} == {file: content for file, (_, content) in before.items()}
    kept = [file for file, (time, _) in before.items() if file.stat().st_mtime_ns == time]
    assert sorted({file.name.split(".")[0] for file in kept}) == ["sim_0000"]
