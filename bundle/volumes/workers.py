"""The processes that prepare and finish volumes while the network is busy with another one."""

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
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import forkserver, get_context, set_start_method
from multiprocessing.context import ForkServerContext
from typing import Any, TypeVar

from bundle.errors import InputError, explain
from bundle.processes import begin_worker
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import VolumePipeline

__all__ = ["ATTEMPTS", "Workers", "killed", "peak_mb"]

ATTEMPTS = 3
"""How often a step is tried if its process is killed."""

_pipeline: VolumePipeline

T = TypeVar("T")


def _hold(pipeline: VolumePipeline) -> None:
    global _pipeline
    _pipeline = pipeline
    # nibabel prints what it repairs in a header, in the middle of the progress bar.
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)


def _begin(pipeline: VolumePipeline) -> None:
    _hold(pipeline)
    from bundle.acceleration.memory import return_freed_memory

    begin_worker()
    return_freed_memory()
    # MONAI inverts transforms that were applied in another process only if it takes processes for spawned ones.
    set_start_method("spawn", force=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process without a traceback


def _run(step: Callable[..., T], volume: VolumeInput, *inputs: Any) -> tuple[T, float]:
    """Run a step of the pipeline in a worker; an error becomes a sentence here, as its causes are not pickled."""
    try:
        return step(_pipeline, volume, *inputs), peak_mb()
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader raise
        raise InputError(explain(volume.file, error)) from None
    finally:
        gc.collect()  # cycles hold images of 100 MB, which Python would leave for long


def killed(volume: VolumeInput) -> str:
    """Return the sentence on a volume whose process was killed each time."""
    return (
        f"{volume.file} could not be processed: its process was killed {ATTEMPTS} times, probably for lack of memory."
    )


def peak_mb() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have processes that start in this block ignore Ctrl-C, which would end them with a traceback, until _begin."""
    if threading.current_thread() is not threading.main_thread():  # signals cannot be set in other threads
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_server(context: ForkServerContext) -> None:
    """Start the process that workers are forked from, and wait until its imports are done.

    A Ctrl-C while waiting for a process of a pool would end that process with a traceback, because the pool's
    semaphores are gone by then; so this waits for a process without any.
    """
    for _ in range(ATTEMPTS):
        with _uninterrupted():
            forkserver.ensure_running()
        first = context.Process(target=int)
        try:
            first.start()
            first.join()
            return
        except (EOFError, OSError):  # the server was killed and is still shutting down
            time.sleep(1)


class Workers:
    """A pool of processes, or one thread for a count of 0, that runs steps of a pipeline; killed ones are replaced."""

    def __init__(self, pipeline: VolumePipeline, count: int) -> None:
        self.pipeline, self.count = pipeline, count
        self.pool = self._new_pool()

    def _new_pool(self) -> Executor:
        if self.count == 0:
            return ThreadPoolExecutor(1, initializer=_hold, initargs=(self.pipeline,))
        if sys.platform != "linux":
            return ProcessPoolExecutor(self.count, get_context("spawn"), _begin, (self.pipeline,))
        # Workers share the memory of the process they are forked from, which has imported all they need.
        context = get_context("forkserver")
        context.set_forkserver_preload(["bundle.volumes.preloaded"])
        _start_server(context)
        return ProcessPoolExecutor(self.count, context, _begin, (self.pipeline,))

    def _submit(self, *call: Any) -> Future:
        # On Linux workers inherit from the server that they ignore Ctrl-C.
        with nullcontext() if sys.platform == "linux" else _uninterrupted():
            try:
                return self.pool.submit(_run, *call)
            except BrokenProcessPool:
                self.pool = self._new_pool()
                return self.pool.submit(_run, *call)

    def submit(self, step: Callable[..., T], volume: VolumeInput, *inputs: Any) -> Callable[[], tuple[T, float]]:
        """Begin a step.

        Args:
            step: a method of :class:`VolumePipeline`.
            volume: its first argument.
            inputs: its further arguments.

        Returns:
            a function that waits for the result and returns it with :func:`peak_mb` of the worker. It tries again if
            the process was killed, and raises an InputError after the last attempt.
        """
        future = self._submit(step, volume, *inputs)

        def result() -> tuple[T, float]:
            nonlocal future
            # All steps in a pool are lost with one process, so the first time does not mean that this step is at fault.
            for _ in range(ATTEMPTS - 1):
                with suppress(BrokenProcessPool):
                    return future.result()
                future = self._submit(step, volume, *inputs)
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise InputError(killed(volume)) from error

        return result

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *reason: object) -> None:
        self.pool.shutdown(cancel_futures=True)
