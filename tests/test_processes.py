"""Workers do not outlive the main program, and no more cores are used than are allowed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from bundle.files import bundle_root
from bundle.processes import begin_worker, keep_to_quota, quota

PROGRAM = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bundle.processes import begin_worker

pool = ProcessPoolExecutor(1, get_context("spawn"), begin_worker)
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system has no niceness")
def test_a_worker_has_the_lowest_priority_and_one_thread() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker) as pool:
        assert pool.submit(os.nice, 0).result() == 19
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_when_the_main_program_is_killed(number: signal.Signals) -> None:
    words = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(words, cwd=bundle_root(), stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        worker = Path("/proc") / first.stdout.readline().strip()
        assert worker.exists()
        first.send_signal(number)
        first.wait()
    deadline = time.monotonic() + 60
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not worker.exists()


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({"pod/job": "250000 100000"}, 2.5),
        ({"pod/job": "max 100000", "pod": "400000 100000"}, 4.0),
        ({"pod/job": "800000 100000", "pod": "50000 100000"}, 0.5),
        ({"pod/job": "max 100000"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_tightest_quota_of_all_groups_counts(limits: dict[str, str], cores: float, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n0::/pod/job\n")
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(limit + "\n")
    assert quota(tmp_path, own) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path, tmp_path / "missing") == math.inf


@pytest.mark.parametrize(("cores", "threads"), [(2.5, 2), (0.5, 1), (math.inf, 4), (16.0, 4)])
def test_threads_are_lowered_to_the_quota_and_never_raised(
    cores: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.processes.quota", lambda: cores)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        keep_to_quota()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
