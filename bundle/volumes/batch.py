"""A batch of volumes that survives what it holds: one that fails never stops the others, and a rerun does the rest."""

from __future__ import annotations

import logging
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from bundle.errors import InputError, explain
from bundle.files import remove_unfinished, write_json
from bundle.processes import begin_worker
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import PreparedVolume, VolumePipeline, VolumeResult
from bundle.volumes.records import file_hash, is_finished, read_record, record_path

__all__ = ["VolumeBatch"]

_log = logging.getLogger(__name__)
_AHEAD = 2  # volumes that are prepared, and as many whose results are written, while the network is busy
_ATTEMPTS = 3

_pipeline: VolumePipeline

T = TypeVar("T")


def _hold(pipeline: VolumePipeline) -> None:
    global _pipeline
    _pipeline = pipeline
    # What nibabel mends in a header it also tells the console, where the progress bar is.
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)


def _begin(pipeline: VolumePipeline) -> None:
    _hold(pipeline)
    begin_worker()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # on Ctrl-C it ends without a trace


@contextmanager
def _telling(volume: VolumeInput) -> Iterator[None]:
    """Makes a sentence of what fails where it fails: an error loses its causes on the way from process to process."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader raise
        raise InputError(explain(volume.file, error)) from None


def _prepare(volume: VolumeInput) -> tuple[PreparedVolume, float]:
    with _telling(volume):
        return _pipeline.prepare(volume), _peak_mb()


def _finish(volume: VolumeInput, prepared: PreparedVolume, logits: torch.Tensor) -> tuple[VolumeResult, float]:
    with _telling(volume):
        return _pipeline.finish(volume, prepared, logits), _peak_mb()


def _peak_mb() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that begin in here do not hear Ctrl-C, on which they would end with a trace, until :func:`_begin`."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere signals cannot be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Workers:
    """Processes that prepare and finish volumes, or one thread for a count of 0; killed ones are replaced."""

    def __init__(self, pipeline: VolumePipeline, count: int) -> None:
        self.pipeline, self.count = pipeline, count
        self.pool = self._new()

    def _new(self) -> Executor:
        if self.count == 0:
            return ThreadPoolExecutor(1, initializer=_hold, initargs=(self.pipeline,))
        return ProcessPoolExecutor(self.count, get_context("spawn"), _begin, (self.pipeline,))

    def submit(self, step: Callable[..., T], *inputs: Any) -> Future[T]:
        """Begins a step, in a new pool where the old one has lost a process."""
        with _uninterrupted():
            try:
                return self.pool.submit(step, *inputs)
            except BrokenProcessPool:
                self.pool = self._new()
                return self.pool.submit(step, *inputs)

    def result(self, future: Future[T], step: Callable[..., T], *inputs: Any) -> T:
        """What a step gave, which is begun anew when its process was killed.

        Raises:
            InputError: when it was killed every time.
        """
        # A killed process takes along what else is under way in its pool, so the first time says little of this step.
        for _ in range(_ATTEMPTS - 1):
            try:
                return future.result()
            except BrokenProcessPool:
                future = self.submit(step, *inputs)
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"{inputs[0].file} could not be processed: the process at work on it was killed {_ATTEMPTS} times, "
                "probably for want of memory."
            ) from error

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *reason: object) -> None:
        self.pool.shutdown(cancel_futures=True)


@dataclass
class _Work:
    """A volume on its way."""

    volume: VolumeInput
    key: dict[str, str]
    future: Future
    inputs: tuple[Any, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0


@dataclass
class VolumeBatch:
    """Segments volumes one after the other, while the next is prepared and the last is written.

    Each volume gets a JSON record in OUTPUT/records: a success is not done again unless its input, the weights or the
    settings have changed; a failure always is.

    Args:
        pipeline: the steps of a volume.
        segment: the network's: a batch of one ``(1, 1, H, W, D)`` to logits of the same shape.
        weights: the hash of the network's weights.
        settings: a text of all settings, or its hash.
        versions: of the software, for the records.
        workers: processes beside this one; 0 for a thread in their place, which begins at once.
        progress: show a bar.

    Raises:
        ValueError: when there are fewer than 0 workers.
    """

    pipeline: VolumePipeline
    segment: Callable[[torch.Tensor], torch.Tensor]
    weights: str
    settings: str
    versions: str
    workers: int = 2
    progress: bool = True
    _unwritten: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more, got {self.workers}.")

    def run(self, volumes: Sequence[VolumeInput]) -> list[dict[str, Any]]:
        """Segments what is not finished yet.

        Args:
            volumes: of :func:`find_volumes`.

        Returns:
            the records of all volumes, in their order.
        """
        writing: deque[_Work] = deque()
        with _Workers(self.pipeline, self.workers) as workers, self._bar(volumes) as bar:
            for work in self._prepared(volumes, workers, bar):
                if (finishing := self._infer(work, workers)) is not None:
                    writing.append(finishing)
                else:
                    bar.update()
                if len(writing) >= _AHEAD:
                    self._finish(writing.popleft(), workers)
                    bar.update()
            while writing:
                self._finish(writing.popleft(), workers)
                bar.update()
        return self.records(volumes)

    def records(self, volumes: Sequence[VolumeInput]) -> list[dict[str, Any]]:
        """Those of the volumes that have one, in their order."""
        output = self.pipeline.output
        found = (self._unwritten.get(volume.name) or read_record(output, volume) for volume in volumes)
        return [record for record in found if record is not None]

    def _bar(self, volumes: Sequence[VolumeInput]) -> tqdm:
        return tqdm(total=len(volumes), desc="volumes", smoothing=0.1, disable=not self.progress)

    def _prepared(self, volumes: Sequence[VolumeInput], workers: _Workers, bar: tqdm) -> Iterator[_Work]:
        """The volumes that are left to do, a few of them under way."""
        ahead: deque[_Work] = deque()
        for volume in volumes:
            key = self._key(volume)
            if is_finished(read_record(self.pipeline.output, volume), key, self.pipeline.output):
                bar.update()
                continue
            self._remove_unfinished(volume)
            ahead.append(_Work(volume, key, workers.submit(_prepare, volume)))
            if len(ahead) > _AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _key(self, volume: VolumeInput) -> dict[str, str]:
        try:
            content = file_hash(volume.file)
        except OSError:  # told by the header's check, in its words
            content = ""
        return {"input": content, "weights": self.weights, "settings": self.settings}

    def _remove_unfinished(self, volume: VolumeInput) -> None:
        for path in (record_path(self.pipeline.output, volume), *self.pipeline.paths(volume)):
            # What stands in the way of removing stands in that of writing, and is told there.
            with suppress(OSError):
                remove_unfinished(path)

    def _remove_outdated(self, volume: VolumeInput, files: Sequence[str]) -> None:
        """Earlier results that are no longer asked for, so that none stays that the record does not name."""
        kept = {self.pipeline.output / file for file in files}
        for path in set(self.pipeline.paths(volume)) - kept:
            path.unlink(missing_ok=True)

    def _infer(self, work: _Work, workers: _Workers) -> _Work | None:
        """The network's turn; None for a volume that failed."""
        try:
            prepared, peak_mb = workers.result(work.future, _prepare, work.volume)
            start = time.perf_counter()
            logits = self.segment(prepared.image.as_tensor()[None])[0].cpu()
            seconds = time.perf_counter() - start
        except Exception as error:  # one volume never stops the others
            self._fail(work, explain(work.volume.file, error))
            return None
        inputs = (work.volume, prepared, logits)
        future = workers.submit(_finish, *inputs)
        return _Work(work.volume, work.key, future, inputs, seconds, peak_mb)

    def _finish(self, work: _Work, workers: _Workers) -> None:
        try:
            result, peak_mb = workers.result(work.future, _finish, *work.inputs)
            self._remove_outdated(work.volume, result.files)
        except OSError as error:
            self._fail(work, f"The results of {work.volume.file} could not be written: {error.strerror or error}.")
            return
        except Exception as error:  # a file that changed since it was read, for instance
            self._fail(work, explain(work.volume.file, error))
            return
        found = result._asdict()
        found["lesions"] = [lesion._asdict() for lesion in result.lesions]
        load, registration, write = (result.timing[step] for step in ("load", "registration", "write"))
        found["timing"] = {"load": load, "registration": registration, "network": work.seconds, "write": write}
        found["seconds"] = sum(found["timing"].values())
        worker_mb = max(peak_mb, work.peak_mb) if self.workers else 0.0  # a thread's memory is the program's own
        found["peak_memory_mb"] = _peak_mb() + worker_mb
        self._record(work, {"status": "done", "error": "", **found})

    def _fail(self, work: _Work, reason: str) -> None:
        earlier = self.pipeline.path(work.volume, "desc-lesion_mask")
        kept = f" An earlier mask stays: {earlier}." if earlier.exists() else ""
        self._record(work, {"status": "failed", "error": reason + kept})

    def _record(self, work: _Work, found: Mapping[str, Any]) -> None:
        volume = work.volume
        record = {
            "name": volume.name,
            "file": str(volume.file),
            **found,
            "key": work.key,
            "weights": self.weights[:12],
            "versions": self.versions,
        }
        if found["status"] == "failed":
            _log.error("%s", found["error"])
        else:
            _log.info("%s: %.1f mL in %d lesions", volume.file, found["volume_ml"], len(found["lesions"]))
        try:
            write_json(record, record_path(self.pipeline.output, volume))
        except OSError as error:
            reason = f"The record of {volume.file} could not be written: {error.strerror or error}."
            _log.error("%s", reason)
            self._unwritten[volume.name] = {**record, "status": "failed", "error": found["error"] or reason}
