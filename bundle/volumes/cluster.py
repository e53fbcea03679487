"""A batch on the machines of a Ray cluster; Ray is imported only if one is asked for."""

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
_TIMEOUT_S = 30  # for a cluster to answer, including the start of the program that asks

_batch: VolumeBatch | None = None  # kept in a process on a machine, which segments many volumes


class _Work(NamedTuple):
    """A volume with its segmentation under way."""

    volume: VolumeInput
    key: dict[str, str]
    attempt: int = 1


def _segment(volume: VolumeInput, build: Callable[[], VolumeBatch], shared: Path) -> tuple[str, dict[str, Any] | str]:
    """Run all steps of a volume in one process on one core of a machine.

    Returns:
        the address of the machine, and the volume's record or a sentence on why the machine cannot segment any.
    """
    import ray

    global _batch
    machine = ray.util.get_node_ip_address()
    try:
        if not shared.exists():
            raise InputError(f"{shared.parent} is a different folder there; one that all machines share is expected.")
        if _batch is None:
            torch.set_num_threads(1)
            _batch = build()
    except Exception as error:  # whatever a machine with a different setup raises
        reason = find_input_error(error) or f"{type(error).__name__}: {error}"
        return machine, f"The machine {machine} cannot segment: {' '.join(str(reason).split())}"
    return machine, _batch.run([volume])[0]


def _answers(address: str) -> bool:
    """Return whether a cluster answers at an address; Ray itself would wait forever and ignore Ctrl-C."""
    words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", f"--address={address}"]
    try:
        return subprocess.run(words, capture_output=True, timeout=_TIMEOUT_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect this process to a cluster for a block.

    Args:
        address: that of its first machine, ``"host:port"``; this machine must be in the cluster.

    Raises:
        InputError: if Ray is not installed, or no cluster answers there.
    """
    if find_spec("ray") is None:
        raise InputError("Ray is not installed: pip install -r requirements/ray.txt.")
    if not re.fullmatch(r"[\w.-]+:\d+", address):
        raise InputError(f"--ray {address} is not an address: host:port of the cluster's first machine is expected.")
    if not _answers(address):
        raise InputError(f"No Ray cluster answers at {address}: 'ray start --head' there prints its host and port.")
    import ray

    # The project is expected at the same path on all machines.
    environment = {"env_vars": {"PYTHONPATH": bundle_root()}}
    try:
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
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

    A volume whose process or machine is lost is tried again elsewhere, and fails after three attempts. Machines that
    join later get their share.

    Args:
        ledger: the records.
        build: makes the batch on a machine; what it raises ends the run.
        progress: show a bar.
    """

    ledger: Ledger
    build: Callable[[], VolumeBatch]
    progress: bool = True
    _under_way: dict[Any, _Work] = field(default_factory=dict, init=False)

    def run(self, volumes: Sequence[VolumeInput]) -> list[dict[str, Any]]:
        """Segment what is not finished yet.

        Args:
            volumes: those of :func:`find_volumes`.

        Returns:
            the records of all volumes, in their order.

        Raises:
            InputError: if a machine cannot segment: its folders, packages or weights differ from those of this one.
        """
        import ray

        # Ray's own retries would never end for a volume that is too large for the memory of every machine.
        segment = ray.remote(num_cpus=1, max_retries=0)(_segment).remote
        bar = progress_bar(volumes, self.progress)
        with NamedTemporaryFile(prefix=".shared-", dir=self.ledger.output) as shared, bar:

            def submit(work: _Work) -> None:
                self._under_way[segment(work.volume, self.build, Path(shared.name))] = work

            for volume, key in self.ledger.unfinished(volumes, bar.update):
                submit(_Work(volume, key))
                self._collect(submit, bar, timeout=0)
            while self._under_way:
                self._collect(submit, bar, timeout=None)
        return self.ledger.records(volumes)

    def _collect(self, submit: Callable[[_Work], None], bar: tqdm, timeout: float | None) -> None:
        """Record what has come back, waiting at most ``timeout`` seconds for the first."""
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, WorkerCrashedError

        for reference in ray.wait(list(self._under_way), timeout=timeout)[0]:
            work = self._under_way.pop(reference)
            try:
                machine, found = ray.get(reference)
            except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
                loss = type(error).__name__
                _log.warning("%s was lost, attempt %d of %d: %s", work.volume.file, work.attempt, ATTEMPTS, loss)
                if work.attempt < ATTEMPTS:
                    submit(work._replace(attempt=work.attempt + 1))
                    continue
                self.ledger.fail(work.volume, work.key, killed(work.volume))
            except RayError as error:  # before the first line of _segment
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"A machine of the cluster cannot begin: {reason}. The project is expected in {bundle_root()} on "
                    "each machine, with the same packages."
                ) from error
            else:
                if isinstance(found, str):
                    raise InputError(found)
                _log.info("%s came back from %s", work.volume.file, machine)
                self.ledger.add(found)
            bar.update()
