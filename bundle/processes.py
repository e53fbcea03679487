"""The start of processes, of the main program and of worker pools, and the number of cores that they may use."""

from __future__ import annotations

import math
import os
import sys
import threading
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path

import torch

__all__ = ["begin_worker", "keep_to_quota", "quota", "start_process"]

_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def quota(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> float:
    """Return the number of cores that this process's control groups (version 2) allow it; infinity without a limit.

    Args:
        cgroups: mount point of the groups.
        own: the file that names this process's group.
    """
    try:
        group = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return math.inf
    folder, cores = cgroups / group.strip("/"), math.inf
    for limited in (folder, *folder.parents):
        with suppress(OSError, ValueError):  # "max", or no such file
            share, period = (limited / "cpu.max").read_text().split()
            cores = min(cores, int(share) / int(period))
    return cores


def keep_to_quota() -> None:
    """Lower torch's number of threads to the cores that a container may use; torch counts those of its host.

    Additional threads would wait for each other most of the time.
    """
    cores = quota()
    if cores < torch.get_num_threads():
        torch.set_num_threads(max(math.floor(cores), 1))


def start_process() -> None:
    """Prepare a process that runs a config: check it and its overrides, print errors as sentences, set memory, threads.

    Raises:
        InputError: if an override or a config file has what cannot be meant, see
            :func:`bundle.overrides.check_command_line`.
    """
    # Imported late: the workers of a pool need none of it.
    from bundle.acceleration.memory import keep_freed_memory
    from bundle.errors import print_input_errors_as_sentences
    from bundle.overrides import check_command_line

    print_input_errors_as_sentences()
    check_command_line(sys.argv)
    keep_freed_memory()
    keep_to_quota()


def begin_worker() -> None:
    """Initialise a worker of a process pool: one thread, lowest priority, and an end together with the main program.

    The priority is low because a training step waits for the slowest of its threads: a worker that interrupts one of
    them now and then makes the step several times slower. If the main program is killed, its workers must end too;
    otherwise they would wait for work forever and keep their memory.
    """
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is None:  # the pool has threads instead of processes
        return
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
