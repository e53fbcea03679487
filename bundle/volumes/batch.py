"""A batch of volumes, each on its own: one that fails never stops the others, and a rerun does the rest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from bundle.errors import explain
from bundle.files import remove_unfinished
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.ledger import Ledger
from bundle.volumes.pipeline import VolumePipeline, VolumeResult
from bundle.volumes.workers import Workers, finish, peak_mb, prepare

__all__ = ["VolumeBatch", "progress_bar"]

_AHEAD = 2  # volumes that are prepared, and as many whose results are written, while the network is busy


def progress_bar(volumes: Sequence[VolumeInput], shown: bool) -> tqdm:
    """Return a bar over volumes."""
    return tqdm(total=len(volumes), desc="volumes", smoothing=0.1, disable=not shown)


@dataclass
class _Work:
    """A volume on its way."""

    volume: VolumeInput
    key: dict[str, str]
    future: Future
    inputs: tuple[Any, ...] = ()
    seconds: float = 0.0
    worker_mb: float = 0.0


@dataclass
class VolumeBatch:
    """Segmentation of volumes one after the other, while the next is prepared and the last is written.

    Args:
        pipeline: the steps of a volume.
        segment: the network's: a batch of one ``(1, 1, H, W, D)`` to logits of the same shape.
        ledger: the records: what is finished is not done again, a failure always is.
        workers: processes beside this one; 0 for a thread in their place, which begins at once.
        progress: show a bar.

    Raises:
        ValueError: if there are fewer than 0 workers.
    """

    pipeline: VolumePipeline
    segment: Callable[[torch.Tensor], torch.Tensor]
    ledger: Ledger
    workers: int = 2
    progress: bool = True

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more, got {self.workers}.")

    def run(self, volumes: Sequence[VolumeInput]) -> list[dict[str, Any]]:
        """Segment what is not finished yet.

        Args:
            volumes: of :func:`find_volumes`.

        Returns:
            the records of all volumes, in their order.
        """
        writing: deque[_Work] = deque()
        with Workers(self.pipeline, self.workers) as workers, progress_bar(volumes, self.progress) as bar:
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
        return self.ledger.records(volumes)

    def _prepared(self, volumes: Sequence[VolumeInput], workers: Workers, bar: tqdm) -> Iterator[_Work]:
        """Yield the volumes that are left to do, a few of them under way."""
        ahead: deque[_Work] = deque()
        for volume, key in self.ledger.unfinished(volumes, bar.update):
            self._remove_unfinished(volume)
            ahead.append(_Work(volume, key, workers.submit(prepare, volume)))
            if len(ahead) > _AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _remove_unfinished(self, volume: VolumeInput) -> None:
        for path in (self.ledger.path(volume), *self.pipeline.paths(volume)):
            with suppress(OSError):  # a permission error here recurs on writing, where it is reported
                remove_unfinished(path)

    def _remove_outdated(self, volume: VolumeInput, files: Sequence[str]) -> None:
        """Remove earlier results that are no longer asked for, so that none stays that the record does not name."""
        kept = {self.pipeline.output / file for file in files}
        for path in set(self.pipeline.paths(volume)) - kept:
            path.unlink(missing_ok=True)

    def _infer(self, work: _Work, workers: Workers) -> _Work | None:
        """Run the network, and begin to write; return None for a volume that failed."""
        try:
            prepared, worker_mb = workers.result(work.future, prepare, work.volume)
            start = time.perf_counter()
            logits = self.segment(prepared.image.as_tensor()[None])[0].cpu()
            seconds = time.perf_counter() - start
        except Exception as error:  # one volume never stops the others
            self.ledger.fail(work.volume, work.key, explain(work.volume.file, error))
            return None
        inputs = (work.volume, prepared, logits)
        future = workers.submit(finish, *inputs)
        return _Work(work.volume, work.key, future, inputs, seconds, worker_mb)

    def _finish(self, work: _Work, workers: Workers) -> None:
        try:
            result, worker_mb = workers.result(work.future, finish, *work.inputs)
            self._remove_outdated(work.volume, result.files)
        except OSError as error:
            reason = f"The results of {work.volume.file} could not be written: {error.strerror or error}."
            self.ledger.fail(work.volume, work.key, reason)
        except Exception as error:  # a file that changed since it was read, for instance
            self.ledger.fail(work.volume, work.key, explain(work.volume.file, error))
        else:
            self.ledger.done(work.volume, work.key, self._found(result, work, worker_mb))

    def _found(self, result: VolumeResult, work: _Work, worker_mb: float) -> dict[str, Any]:
        """Return what a record says of a volume that is done."""
        load, registration, write = (result.timing[step] for step in ("load", "registration", "write"))
        timing = {"load": load, "registration": registration, "network": work.seconds, "write": write}
        beside_mb = max(worker_mb, work.worker_mb) if self.workers else 0.0  # a thread's memory is the program's own
        return {
            **result._asdict(),
            "lesions": [lesion._asdict() for lesion in result.lesions],
            "timing": timing,
            "seconds": sum(timing.values()),
            "peak_memory_mb": peak_mb() + beside_mb,
        }
