"""Workers share memory, and are replaced whichever process is killed: a worker, or the one it was forked from."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.workers import Workers
from tests.volumes.conftest import WriteHead

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="on other systems each worker imports everything itself"
)


def memory_mb(pid: int, kind: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def test_a_worker_shares_its_libraries_with_the_others(pipeline: VolumePipeline) -> None:
    with Workers(pipeline, 2) as workers:
        pid = workers.pool.submit(os.getpid).result()
        assert memory_mb(pid, "Shared_Dirty") > 300
        assert memory_mb(pid, "Private_Dirty") < 200


@pytest.mark.parametrize("victim", [os.getpid, os.getppid])
def test_a_killed_process_is_replaced(victim: object, pipeline: VolumePipeline, write_head: WriteHead) -> None:
    volume = VolumeInput(write_head("a.nii.gz"), "a")
    with Workers(pipeline, 1) as workers:
        before = workers.pool.submit(os.getpid).result()
        os.kill(workers.pool.submit(victim).result(), signal.SIGKILL)  # type: ignore[arg-type]
        prepared, _ = workers.submit(VolumePipeline.prepare, volume)()
        assert prepared.image.shape[0] == 1
        assert workers.pool.submit(os.getpid).result() != before
