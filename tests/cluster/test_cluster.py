"""Two Ray nodes and a batch: whatever is killed, the masks are those of one machine, and nothing is done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.cluster.conftest import JUNK, SPACINGS_MM, Local, Scans
from tests.cluster.machines import Machines, segmenting, wait_for
from tests.scripts.test_segment import images, lasting, rows

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform != "linux", reason="the nodes have a network of their own, which only Linux has"),
]

TIMEOUT_S = 1800


def log(output: Path) -> str:
    return (output / "segment.log").read_text(encoding="utf-8")


def came_from(output: Path) -> list[str]:
    """The nodes that segmented, a volume after the other."""
    return [line.rsplit(" ", 1)[1] for line in log(output).splitlines() if " came back from " in line]


def records(output: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (output / "records").rglob("*.json")}


def assert_as_on_one_machine(output: Path, local: Local) -> None:
    assert images(output).keys() == images(local.output).keys()
    assert images(output) == images(local.output)
    for table in ("volumes.tsv", "lesions.tsv"):
        assert lasting(output / table) == lasting(local.output / table)
    assert not [file for file in output.rglob(".*") if file.name not in (".bidsignore", ".lock-all")]


def test_one_machine_segments_all_but_the_junk(local: Local) -> None:
    assert local.code == 1, local.told
    masks, probabilities = (
        [np.asarray(nib.load(file).dataobj) for file in local.output.glob(f"*_desc-lesion_{kind}.nii.gz")]
        for kind in ("mask", "probseg")
    )
    assert len(masks) == len(probabilities) == len(SPACINGS_MM)
    assert all(mask.any() for mask in masks)  # or equal ones would say little
    assert all(probability.std() > 0.001 for probability in probabilities)


def test_a_machine_killed_at_a_random_moment_costs_nothing_but_time(
    machines: Machines, scans: Scans, local: Local, tmp_path: Path
) -> None:
    machines.start(2)
    process = segmenting(*scans, tmp_path, machines)
    wait_for(lambda: machines.workers(2), process)
    begun = time.monotonic()
    wait_for(lambda: "127.0.0.2" in came_from(tmp_path), process)
    moment = np.random.default_rng().uniform(0, 2 * (time.monotonic() - begun) / len(SPACINGS_MM))
    time.sleep(moment)
    assert process.poll() is None
    machines.kill(2)
    before = records(tmp_path)
    told = process.communicate(timeout=TIMEOUT_S)[0]
    where = f"killed after {len(before)} records and {moment:.1f} s: {came_from(tmp_path)}\n{told}"
    print(where)
    assert process.returncode == 1, where
    assert "Traceback" not in told
    assert f"{len(SPACINGS_MM)} of {len(SPACINGS_MM) + 1} volumes are segmented" in told
    assert f"Failed: {scans.folder / JUNK} is not compressed by gzip" in told
    assert set(came_from(tmp_path)) == {"127.0.0.1", "127.0.0.2"}
    assert_as_on_one_machine(tmp_path, local)

    finished = records(tmp_path)
    again = segmenting(*scans, tmp_path, machines)
    again.communicate(timeout=TIMEOUT_S)
    assert again.returncode == 1
    changed = {file.stem for file, written in records(tmp_path).items() if written != finished[file]}
    assert changed == {"junk"}
    assert len(came_from(tmp_path)) == len(SPACINGS_MM) + 2  # the junk twice
    assert_as_on_one_machine(tmp_path, local)


def test_a_worker_is_killed_and_a_machine_joins_late(
    machines: Machines, scans: Scans, local: Local, tmp_path: Path
) -> None:
    process = segmenting(*scans, tmp_path, machines)
    wait_for(lambda: records(tmp_path) and machines.workers(1), process)
    os.kill(machines.workers(1)[0], signal.SIGKILL)
    machines.start(3)
    told = process.communicate(timeout=TIMEOUT_S)[0]
    machines.kill(3)
    print(came_from(tmp_path))
    assert process.returncode == 1, told
    assert log(tmp_path).count("was lost, attempt 1 of 3: WorkerCrashedError") == 1
    assert "attempt 2" not in log(tmp_path)
    assert set(came_from(tmp_path)) == {"127.0.0.1", "127.0.0.3"}
    assert_as_on_one_machine(tmp_path, local)


def test_a_volume_that_kills_its_worker_each_time_fails_alone(machines: Machines, scans: Scans, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.nii.gz", "b killed.nii.gz", "c.nii.gz"):
        shutil.copy(scans.folder / "head_4_mm.nii.gz", folder / name)
    (tmp_path / "results").mkdir()
    words = [sys.executable, "-m", "tests.cluster.deadly", str(folder), str(tmp_path / "results")]
    told, _ = machines.begin(words, stdout=-1, stderr=None, text=True).communicate(timeout=TIMEOUT_S)
    found = json.loads(told.splitlines()[-1])
    assert {name: status for name, (status, _) in found.items()} == {"a": "done", "b killed": "failed", "c": "done"}
    assert found["b killed"][1] == (
        f"{folder / 'b killed.nii.gz'} could not be processed: its process was killed 3 times, probably "
        "for lack of memory."
    )


def test_ctrl_c_ends_it_and_the_machines_are_free_again(machines: Machines, scans: Scans, tmp_path: Path) -> None:
    process = segmenting(*scans, tmp_path, machines)
    wait_for(lambda: records(tmp_path) and machines.workers(1), process)
    inner = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(inner, signal.SIGINT)
    told = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 1
    assert "Traceback" not in told
    assert "Stopped: the same command goes on from here." in told
    finished = rows(tmp_path / "volumes.tsv")
    assert 0 < len(finished) < len(SPACINGS_MM) + 1
    deadline = time.monotonic() + 60
    while machines.workers(1):
        assert time.monotonic() < deadline, "a worker goes on"
        time.sleep(0.5)


def test_a_machine_that_does_not_share_the_folder_ends_the_run(
    machines: Machines, scans: Scans, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    output.mkdir()
    machines.start(4, before=f"mount -t tmpfs none '{output}'")
    process = segmenting(*scans, output, machines)
    told = process.communicate(timeout=TIMEOUT_S)[0]
    machines.kill(4)
    assert process.returncode == 1
    expected = (
        f"Error: The machine 127.0.0.4 cannot segment: {output} is a different folder there; one that all machines"
    )
    assert expected in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ray": "127.0.0.1:7777"}, "No Ray cluster answers at 127.0.0.1:7777: 'ray start --head' there prints its"),
        ({"ray": "nowhere"}, "--ray nowhere is not an address: host:port of the cluster's first machine is expected."),
        ({"workers": 3}, "--workers is for one machine: with --ray each core of each machine segments a volume."),
    ],
)
def test_bad_usage_is_told_in_a_sentence(
    options: dict, sentence: str, machines: Machines, scans: Scans, tmp_path: Path
) -> None:
    process = segmenting(*scans, tmp_path / "results", machines, **options)
    told = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 2
    assert f"Error: {sentence}" in told
    assert "Traceback" not in told
    assert not (tmp_path / "results").exists()


def test_ray_is_not_imported_where_it_is_not_asked_for(machines: Machines) -> None:
    words = [sys.executable, "-c", "import sys, bundle.segmenter; print('ray' in sys.modules)"]
    assert machines.begin(words, stdout=-1, text=True).communicate(timeout=TIMEOUT_S)[0] == "False\n"
