"""Processes beside the one that the user started."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process

import torch

__all__ = ["begin_worker"]


def begin_worker() -> None:
    """Called first in a process of a pool: it uses one thread, yields to the program, and ends with it.

    It takes the processor time that the program leaves: a training step waits for the slowest of its threads, and one
    that a neighbour holds up now and then makes all of them several times slower. And without the end a killed program
    would leave its processes waiting for work for ever, each with its memory.
    """
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is None:  # threads in place of processes
        return
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
