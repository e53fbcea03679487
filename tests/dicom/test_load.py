"""The receiver under load: five senders at once, slow ones, dropped associations, strangers and kills.

200 studies, as docs/dicom.md has them: ``RECEIVER_STUDIES=200 python -m pytest tests/dicom/test_load.py -s``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage
from pynetdicom import AE, evt

from bundle.files import bundle_root
from tests.dicom.loaded import SENDERS
from tests.dicom.orthanc import free_port
from tests.dicom.scans import in_study

pytestmark = pytest.mark.dicom

STUDIES, INSTANCES, KILLS = int(os.environ.get("RECEIVER_STUDIES", "30")), 4, 3
LONGEST_S = 900
GROWTH_MB = 30


class Program:
    """tests.dicom.loaded, which can be killed and started again."""

    def __init__(self, spool: Path, archive: int) -> None:
        self.spool, self.port = spool, free_port()
        self.words = [sys.executable, "-m", "tests.dicom.loaded", str(spool), str(self.port), str(archive)]

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, cwd=bundle_root(), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"listening at {self.port}\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def memory_mb(self) -> float:
        (line,) = (
            line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "VmRSS" in line
        )
        return int(line.split()[1]) / 1024

    def done(self) -> int:
        """Return how many studies have been sent."""
        return len(list((self.spool / "states").glob("*.json")))


@pytest.fixture
def got() -> Counter[str]:
    """How often the archive got each object."""
    return Counter()


@pytest.fixture
def program(got: Counter[str], tmp_path: Path) -> Iterator[Program]:
    def store(event: evt.Event) -> int:
        got[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0x0000

    archive = AE("PACS")
    archive.add_supported_context(SegmentationStorage)
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    started = Program(tmp_path / "spool", server.server_address[1])
    started.start()
    yield started
    started.kill()
    server.shutdown()


def send(port: int, title: str, study: Sequence[Dataset], pause_s: float = 0.0, drop_after: int | None = None) -> bool:
    """Send a study, and return whether all of it is confirmed; the connection can be cut in the middle."""
    entity = AE(title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = 20
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="STROKE")
    if not association.is_established:
        return False
    try:
        for number, one in enumerate(study):
            if number == drop_after:
                association.abort()
                return False
            if association.send_c_store(one).get("Status") != 0x0000:
                return False
            time.sleep(pause_s)
    except (RuntimeError, ValueError):  # the receiver is gone
        return False
    finally:
        if association.is_established:
            association.release()
    return True


def deliver(program: Program, title: str, studies: Sequence[Sequence[Dataset]]) -> None:
    """Send each study until all of it is confirmed, as an archive does; every third is slow, every fourth dropped."""
    for number, study in enumerate(studies):
        drop_after = 2 if number % 4 == 1 else None
        pause_s = 0.3 if number % 3 == 2 else 0.0
        while not send(program.port, title, study, pause_s, drop_after):
            drop_after = None
            time.sleep(0.2)


@pytest.fixture
def studies(head_series: list[Dataset]) -> list[list[Dataset]]:
    """Four slices each, without private elements."""
    small = head_series[:INSTANCES]
    for one in small:
        one.remove_private_tags()
    return [in_study(small, f"P{number}") for number in range(STUDIES)]


def kill_at_random(program: Program, kills: int) -> None:
    random = np.random.default_rng()
    for _ in range(kills):
        time.sleep(float(random.uniform(1, 5)))
        program.kill()
        program.start()


def test_no_study_is_lost_or_sent_twice_under_load(
    program: Program, got: Counter[str], studies: list[list[Dataset]]
) -> None:
    begin = time.monotonic()
    strangers, stop = list[bool](), threading.Event()

    def intrude() -> None:
        while not stop.wait(0.5):
            strangers.append(send(program.port, "EVIL", studies[0]))

    with ThreadPoolExecutor(len(SENDERS) + 1) as pool:
        stranger = pool.submit(intrude)
        sending = [pool.submit(deliver, program, title, studies[n::5]) for n, title in enumerate(SENDERS)]
        kill_at_random(program, KILLS)
        memory_mb, deadline = [program.memory_mb()], begin + LONGEST_S
        while program.done() < STUDIES or not all(sender.done() for sender in sending):
            assert time.monotonic() < deadline, f"{program.done()} of {STUDIES} studies"
            time.sleep(0.5)
            memory_mb.append(program.memory_mb())
        for sender in sending:
            sender.result()
        stop.set()
        stranger.result()
    states = [json.loads(file.read_text()) for file in (program.spool / "states").glob("*.json")]
    assert len(states) == len(list((program.spool / "studies").iterdir())) == STUDIES
    assert not [state for state in states if state["error"]]
    assert got.keys() == {uid for state in states for uid in state["sent"]}
    assert len(got) == STUDIES  # of whole studies alone
    assert all(uid.endswith(f".{INSTANCES}") for uid in got)
    # Only one that was killed between the archive's receipt and its own note of it sends again, the same object.
    assert got.total() - STUDIES <= KILLS
    assert strangers and not any(strangers)
    settled, last = memory_mb[len(memory_mb) // 4], memory_mb[-1]
    assert last - settled < GROWTH_MB
    print(
        f"\n{STUDIES} studies of {INSTANCES} instances from {len(SENDERS)} senders, {KILLS} kills: "
        f"{time.monotonic() - begin:.0f} s, {len(got)} segmentations, {got.total() - len(got)} sent again, "
        f"{len(strangers)} strangers refused, memory {settled:.0f} to {last:.0f} MB"
    )


def test_silent_connections_keep_nobody_out(program: Program, got: Counter[str], studies: list[list[Dataset]]) -> None:
    silent = [socket.create_connection(("127.0.0.1", program.port)) for _ in range(30)]
    try:
        time.sleep(0.5)
        assert send(program.port, "MR1", studies[0])
        assert not send(program.port, "EVIL", studies[1])
    finally:
        for one in silent:
            one.close()
