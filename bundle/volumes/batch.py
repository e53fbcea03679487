"""A batch of volumes that survives what it holds: one that fails never stops the others, and a rerun does the rest."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from bundle.errors import explain
from bundle.files import remove_unfinished, write_json
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.records import input_hash, is_finished, read_record, record_path
from bundle.volumes.workers import Workers, finish, peak_mb, prepare

__all__ = ["VolumeBatch"]

_log = logging.getLogger(__name__)
_AHEAD = 2  # volumes that are prepared, and as many whose results are written, while the network is busy


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
    _records: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

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
        with Workers(self.pipeline, self.workers) as workers, self.bar(volumes) as bar:
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
        found = (self._records.get(volume.name) or read_record(output, volume) for volume in volumes)
        return [record for record in found if record is not None]

    def bar(self, volumes: Sequence[VolumeInput]) -> tqdm:
        """The bar over all volumes."""
        return tqdm(total=len(volumes), desc="volumes", smoothing=0.1, disable=not self.progress)

    def unfinished(self, volumes: Sequence[VolumeInput], bar: tqdm) -> Iterator[tuple[VolumeInput, dict[str, str]]]:
        """The volumes that are left to do, with the keys of their records; the bar goes past the others."""
        for volume in volumes:
            key = self._key(volume)
            if is_finished(read_record(self.pipeline.output, volume), key, self.pipeline.output):
                bar.update()
            else:
                yield volume, key

    def fail(self, volume: VolumeInput, key: Mapping[str, str], reason: str) -> None:
        """Records that a volume could not be segmented, in a sentence; an earlier mask stays, and is named."""
        earlier = self.pipeline.path(volume, "desc-lesion_mask")
        kept = f" An earlier mask stays: {earlier}." if earlier.exists() else ""
        self._write(volume, key, {"status": "failed", "error": reason + kept})

    def tell(self, record: dict[str, Any]) -> None:
        """Keeps the record of a volume for :meth:`records`, and logs what came of it."""
        self._records[record["name"]] = record
        if record["status"] == "failed":
            _log.error("%s", record["error"])
        else:
            _log.info("%s: %.1f mL in %d lesions", record["file"], record["volume_ml"], len(record["lesions"]))

    def _prepared(self, volumes: Sequence[VolumeInput], workers: Workers, bar: tqdm) -> Iterator[_Work]:
        """The volumes that are left to do, a few of them under way."""
        ahead: deque[_Work] = deque()
        for volume, key in self.unfinished(volumes, bar):
            self._remove_unfinished(volume)
            ahead.append(_Work(volume, key, workers.submit(prepare, volume)))
            if len(ahead) > _AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _key(self, volume: VolumeInput) -> dict[str, str]:
        try:
            content = input_hash(volume)
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

    def _infer(self, work: _Work, workers: Workers) -> _Work | None:
        """The network's turn; None for a volume that failed."""
        try:
            prepared, worker_mb = workers.result(work.future, prepare, work.volume)
            start = time.perf_counter()
            logits = self.segment(prepared.image.as_tensor()[None])[0].cpu()
            seconds = time.perf_counter() - start
        except Exception as error:  # one volume never stops the others
            self.fail(work.volume, work.key, explain(work.volume.file, error))
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
            self.fail(work.volume, work.key, reason)
            return
        except Exception as error:  # a file that changed since it was read, for instance
            self.fail(work.volume, work.key, explain(work.volume.file, error))
            return
        found = result._asdict()
        found["lesions"] = [lesion._asdict() for lesion in result.lesions]
        load, registration, write = (result.timing[step] for step in ("load", "registration", "write"))
        found["timing"] = {"load": load, "registration": registration, "network": work.seconds, "write": write}
        found["seconds"] = sum(found["timing"].values())
        worker_mb = max(worker_mb, work.worker_mb) if self.workers else 0.0  # a thread's memory is the program's own
        found["peak_memory_mb"] = peak_mb() + worker_mb
        self._write(work.volume, work.key, {"status": "done", "error": "", **found})

    def _write(self, volume: VolumeInput, key: Mapping[str, str], found: Mapping[str, Any]) -> None:
        """Writes the record of a volume; one that cannot be written is of a failure."""
        record = {
            "name": volume.name,
            "file": str(volume.file),
            **found,
            "key": key,
            "weights": self.weights[:12],
            "versions": self.versions,
        }
        try:
            write_json(record, record_path(self.pipeline.output, volume))
        except OSError as error:
            reason = f"The record of {volume.file} could not be written: {error.strerror or error}."
            record = {**record, "status": "failed", "error": f"{record['error']} {reason}".lstrip()}
        self.tell(record)
