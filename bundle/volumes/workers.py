"""The processes that prepare and finish volumes while the network is busy with another."""

from __future__ import annotations

import gc
import logging
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from multiprocessing import forkserver, get_context, set_start_method
from multiprocessing.context import ForkServerContext
from typing import Any, TypeVar

import torch

from bundle.errors import InputError, explain
from bundle.processes import begin_worker
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import PreparedVolume, VolumePipeline, VolumeResult

__all__ = ["ATTEMPTS", "Workers", "finish", "killed", "peak_mb", "prepare"]

ATTEMPTS = 3
"""How often a step is begun whose process is killed."""

_pipeline: VolumePipeline

T = TypeVar("T")


def _hold(pipeline: VolumePipeline) -> None:
    global _pipeline
    _pipeline = pipeline
    # What nibabel mends in a header it also tells the console, where the progress bar is.
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)


def _begin(pipeline: VolumePipeline) -> None:
    _hold(pipeline)
    from bundle.acceleration.memory import return_freed_memory

    begin_worker()
    return_freed_memory()
    # MONAI inverts what its transforms did in another process only where it takes processes for spawned ones.
    set_start_method("spawn", force=True)
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
    finally:
        gc.collect()  # cycles hold images, 100 MB of them before Python would look


def prepare(volume: VolumeInput) -> tuple[PreparedVolume, float]:
    """:meth:`VolumePipeline.prepare` in a worker, and :func:`peak_mb` of it."""
    with _telling(volume):
        return _pipeline.prepare(volume), peak_mb()


def finish(volume: VolumeInput, prepared: PreparedVolume, logits: torch.Tensor) -> tuple[VolumeResult, float]:
    """:meth:`VolumePipeline.finish` in a worker, and :func:`peak_mb` of it."""
    with _telling(volume):
        return _pipeline.finish(volume, prepared, logits), peak_mb()


def killed(volume: VolumeInput) -> str:
    """Return the sentence on a volume whose process was killed each time."""
    return (
        f"{volume.file} could not be processed: the process at work on it was killed {ATTEMPTS} times, "
        "probably for want of memory."
    )


def peak_mb() -> float:
    """Return the most memory that this process has held so far, in MiB."""
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


def _start_server(context: ForkServerContext) -> None:
    """Starts what workers are forked from, and waits until it has imported all.

    Who is interrupted while waiting for a process of a pool leaves it to end in a trace, as the pool's semaphores are
    gone by then; so the wait is for a process without any.
    """
    for _ in range(ATTEMPTS):
        with _uninterrupted():
            forkserver.ensure_running()
        first = context.Process(target=int)
        try:
            first.start()
            first.join()
            return
        except (EOFError, OSError):  # it was killed, and is not quite gone
            time.sleep(1)


class Workers:
    """Processes that prepare and finish volumes, or one thread for a count of 0; killed ones are replaced."""

    def __init__(self, pipeline: VolumePipeline, count: int) -> None:
        self.pipeline, self.count = pipeline, count
        self.pool = self._new()

    def _new(self) -> Executor:
        if self.count == 0:
            return ThreadPoolExecutor(1, initializer=_hold, initargs=(self.pipeline,))
        if sys.platform != "linux":
            return ProcessPoolExecutor(self.count, get_context("spawn"), _begin, (self.pipeline,))
        # Forked from a process that has imported all they need, they share its memory.
        context = get_context("forkserver")
        context.set_forkserver_preload(["bundle.volumes.preloaded"])
        _start_server(context)
        return ProcessPoolExecutor(self.count, context, _begin, (self.pipeline,))

    def submit(self, step: Callable[..., T], *inputs: Any) -> Future[T]:
        """Begins a step, in a new pool where the old one has lost a process."""
        # Forked ones are as deaf as what they come from.
        with nullcontext() if sys.platform == "linux" else _uninterrupted():
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
        for _ in range(ATTEMPTS - 1):
            try:
                return future.result()
            except BrokenProcessPool:
                future = self.submit(step, *inputs)
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise InputError(killed(inputs[0])) from error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *reason: object) -> None:
        self.pool.shutdown(cancel_futures=True)
