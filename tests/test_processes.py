"""Processes of a pool do not outlive the one that started them."""

from __future__ import annotations

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

from bundle import bundle_root
from bundle.processes import begin_worker

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
def test_a_process_of_a_pool_yields_and_has_one_thread() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker) as pool:
        assert pool.submit(os.nice, 0).result() == 19
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_of_a_pool_ends_when_the_first_one_is_killed(number: signal.Signals) -> None:
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
