"""A batch of volumes: one that fails never stops the others, and a rerun does only what is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from tqdm import tqdm

from bundle.errors import explain
from bundle.files import remove_unfinished
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.ledger import Ledger
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.workers import Workers, peak_mb

__all__ = ["VolumeBatch", "progress_bar"]

# Volumes that are prepared, and those whose results are written, while the network is busy with another one.
_PREPARED, _WRITTEN = 2, 1

T = TypeVar("T")


def progress_bar(volumes: Sequence[VolumeInput], shown: bool) -> tqdm:
    """Return a bar over volumes."""
    return tqdm(total=len(volumes), desc="volumes", smoothing=0.1, disable=not shown)


def _delayed(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield each item once ``count`` items after it have been begun."""
    begun: deque[T] = deque()
    for item in items:
        begun.append(item)
        if len(begun) > count:
            yield begun.popleft()
    yield from begun


class _Work(NamedTuple):
    """A volume with a step under way.

    Args:
        result: waits for the step; see :meth:`Workers.submit`.
        worker_mb: memory of the worker of the step before.
    """

    volume: VolumeInput
    key: dict[str, str]
    result: Callable[[], tuple[Any, float]]
    worker_mb: float = 0.0


@dataclass
class VolumeBatch:
    """Segmentation of volumes one after the other, while the next is prepared and the last is written.

    Args:
        pipeline: the steps of a volume before and after the network.
        segment: the network: ``(1, 1, H, W, D)`` to logits of the same shape.
        ledger: the records: finished volumes are skipped, failed ones are tried again.
        workers: processes besides this one; 0 for a thread, which starts at once.
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
        with Workers(self.pipeline, self.workers) as workers, progress_bar(volumes, self.progress) as bar:
            prepared = _delayed(self._prepare(volumes, workers, bar), _PREPARED)
            for work in _delayed((self._infer(work, workers) for work in prepared), _WRITTEN):
                if work is not None:
                    self._finish(work)
                bar.update()
        return self.ledger.records(volumes)

    def _prepare(self, volumes: Sequence[VolumeInput], workers: Workers, bar: tqdm) -> Iterator[_Work]:
        """Begin to prepare the volumes that are not finished."""
        for volume, key in self.ledger.unfinished(volumes, bar.update):
            for path in (self.ledger.path(volume), *self.pipeline.paths(volume)):
                with suppress(OSError):  # a permission error here recurs on writing, where it is reported
                    remove_unfinished(path)
            yield _Work(volume, key, workers.submit(VolumePipeline.prepare, volume))

    def _infer(self, work: _Work, workers: Workers) -> _Work | None:
        """Run the network, and begin to write; return None for a volume that failed."""
        try:
            prepared, worker_mb = work.result()
            start = time.perf_counter()
            logits = self.segment(prepared.image.as_tensor()[None])[0].cpu()
            prepared.timing["network"] = time.perf_counter() - start
        except Exception as error:  # one volume never stops the others
            self.ledger.fail(work.volume, work.key, explain(work.volume.file, error))
            return None
        result = workers.submit(VolumePipeline.finish, work.volume, prepared, logits)
        return work._replace(result=result, worker_mb=worker_mb)

    def _finish(self, work: _Work) -> None:
        try:
            result, worker_mb = work.result()
            # Earlier results that are no longer asked for must not stay, as the record does not name them.
            kept = {self.pipeline.output / file for file in result.files}
            for path in set(self.pipeline.paths(work.volume)) - kept:
                path.unlink(missing_ok=True)
        except OSError as error:
            reason = f"The results of {work.volume.file} could not be written: {error.strerror or error}."
            self.ledger.fail(work.volume, work.key, reason)
        except Exception as error:  # a file that changed since it was read, for instance
            self.ledger.fail(work.volume, work.key, explain(work.volume.file, error))
        else:
            workers_mb = max(worker_mb, work.worker_mb) if self.workers else 0.0  # a thread's memory is the program's
            found = {
                **result._asdict(),
                "lesions": [lesion._asdict() for lesion in result.lesions],
                "seconds": sum(result.timing.values()),
                "peak_memory_mb": peak_mb() + workers_mb,
            }
            self.ledger.done(work.volume, work.key, found)
