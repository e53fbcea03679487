"""A batch that is spread over the machines of a Ray cluster; Ray is imported when one is asked for, and only then."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from bundle.errors import InputError, find_input_error
from bundle.files import bundle_root
from bundle.volumes.batch import VolumeBatch, progress_bar
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.ledger import Ledger
from bundle.volumes.workers import ATTEMPTS, killed

__all__ = ["ClusterBatch", "connected"]

_log = logging.getLogger(__name__)
_PATIENCE_S = 30  # in which a cluster answers, the start of the program that asks included

BuildBatch = Callable[[], VolumeBatch]

_batch: VolumeBatch | None = None  # of a process on one of the machines, which segments many volumes


class _Outcome(NamedTuple):
    """What became of a volume on a machine: its record, or the sentence why that machine cannot segment any."""

    machine: str
    record: dict[str, Any] | None = None
    refusal: str = ""


class _Work(NamedTuple):
    """A volume on its way."""

    volume: VolumeInput
    key: dict[str, str]
    attempt: int = 1


def _segment(volume: VolumeInput, build: BuildBatch, shared: Path) -> _Outcome:
    """Runs on one of the machines: all steps of a volume, in one process on one core."""
    import ray

    global _batch
    machine = ray.util.get_node_ip_address()
    try:
        if not shared.exists():
            raise InputError(f"{shared.parent} is another folder there; one that all machines share is expected.")
        if _batch is None:
            torch.set_num_threads(1)
            _batch = build()
    except Exception as error:  # whatever a machine that is set up in another way makes of it
        told = find_input_error(error) or f"{type(error).__name__}: {error}"
        return _Outcome(machine, refusal=" ".join(str(told).split()))
    return _Outcome(machine, _batch.run([volume])[0])


def _answers(address: str) -> bool:
    """Return whether a cluster answers at an address; Ray itself would wait for ever, deaf to Ctrl-C."""
    words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", f"--address={address}"]
    try:
        return subprocess.run(words, capture_output=True, timeout=_PATIENCE_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Within it this process belongs to a cluster.

    Args:
        address: of its first machine, ``"host:port"``; this machine must be one of the cluster.

    Raises:
        InputError: when Ray is not installed, or no cluster answers there.
    """
    if find_spec("ray") is None:
        raise InputError("Ray is not installed: pip install -r requirements/ray.txt.")
    if not re.fullmatch(r"[\w.-]+:\d+", address):
        raise InputError(f"--ray {address} is no address: host:port of the cluster's first machine is expected.")
    if not _answers(address):
        raise InputError(f"No Ray cluster answers at {address}: 'ray start --head' there says its host and port.")
    import ray

    try:
        ray.init(
            address,
            # The machines have the project where this one has it.
            runtime_env={"env_vars": {"PYTHONPATH": bundle_root()}},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError) as error:
        raise InputError(
            f"This machine cannot join the Ray cluster at {address}: 'ray start --address={address}' is expected on "
            "it, with the same versions of Ray and Python."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class ClusterBatch:
    """Segmentation on the machines of a cluster, each volume in a process on one core; within :func:`connected`.

    A volume whose process or machine is lost is begun again elsewhere, and fails when that happens three times.
    Machines that join later get their part.

    Args:
        ledger: the records.
        build: makes the batch on a machine; what it raises ends the run.
        progress: show a bar.
    """

    ledger: Ledger
    build: BuildBatch
    progress: bool = True
    _under_way: dict[Any, _Work] = field(default_factory=dict, init=False)

    def run(self, volumes: Sequence[VolumeInput]) -> list[dict[str, Any]]:
        """Segment what is not finished yet.

        Args:
            volumes: of :func:`find_volumes`.

        Returns:
            the records of all volumes, in their order.

        Raises:
            InputError: when a machine cannot segment: its folders, packages or weights are not those of this one.
        """
        bar = progress_bar(volumes, self.progress)
        with NamedTemporaryFile(prefix=".shared-", dir=self.ledger.output) as shared, bar:
            for volume, key in self.ledger.unfinished(volumes, bar.update):
                self._submit(_Work(volume, key), Path(shared.name))
                self._collect(Path(shared.name), bar, timeout=0)
            while self._under_way:
                self._collect(Path(shared.name), bar, timeout=None)
        return self.ledger.records(volumes)

    def _submit(self, work: _Work, shared: Path) -> None:
        import ray

        # Ray's own retries would know no end for a volume that is too large for each machine's memory.
        segment = ray.remote(num_cpus=1, max_retries=0)(_segment)
        self._under_way[segment.remote(work.volume, self.build, shared)] = work

    def _collect(self, shared: Path, bar: tqdm, timeout: float | None) -> None:
        """Collect what has come back, waiting at most ``timeout`` seconds for the first."""
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, WorkerCrashedError

        for reference in ray.wait(list(self._under_way), timeout=timeout)[0]:
            work = self._under_way.pop(reference)
            try:
                outcome = ray.get(reference)
            except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
                self._begin_again(work, shared, bar, type(error).__name__)
            except RayError as error:  # before the first line of ours
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"A machine of the cluster cannot begin: {reason}. The project is expected in {bundle_root()} on "
                    "each, with the same packages."
                ) from error
            else:
                self._take(work, outcome)
                bar.update()

    def _take(self, work: _Work, outcome: _Outcome) -> None:
        if outcome.record is None:
            raise InputError(f"The machine {outcome.machine} cannot segment: {outcome.refusal}")
        _log.info("%s came back from %s", work.volume.file, outcome.machine)
        self.ledger.add(outcome.record)

    def _begin_again(self, work: _Work, shared: Path, bar: tqdm, loss: str) -> None:
        """Submit a volume again whose process or machine was lost; after the last attempt it has failed."""
        _log.warning("%s was lost, attempt %d of %d: %s", work.volume.file, work.attempt, ATTEMPTS, loss)
        if work.attempt < ATTEMPTS:
            self._submit(work._replace(attempt=work.attempt + 1), shared)
            return
        self.ledger.fail(work.volume, work.key, killed(work.volume))
        bar.update()
