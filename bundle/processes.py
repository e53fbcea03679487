"""Processes beside the one that the user started."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process

import torch

__all__ = ["begin_worker"]


def begin_worker() -> None:
    """Called first in a process of a pool: it uses one thread, and ends when the one that started it has ended.

    Without it a killed program would leave its processes waiting for work for ever, each with its memory.
    """
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is None:  # threads in place of processes
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
