"""How a process begins: the one that the user started and those beside it, and how many cores there are for all."""

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
    """How many cores' time this process may use, by the control groups that it is in (version 2); infinity without.

    Args:
        cgroups: where the groups are mounted.
        own: the file that says in which of them this process is.
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
    """Lowers torch's threads to the cores that a container may use; torch counts those of its host.

    More threads than that wait for each other most of the time.
    """
    cores = quota()
    if cores < torch.get_num_threads():
        torch.set_num_threads(max(math.floor(cores), 1))


def start_process() -> None:
    """Begin a process that runs a config: its overrides checked, errors as sentences, memory kept, threads as allowed.

    Raises:
        InputError: when the command line has an override that the config does not know.
    """
    # Here, so that the processes of a pool do not wait for MONAI.
    from bundle.acceleration.memory import keep_freed_memory
    from bundle.errors import print_input_errors_as_sentences
    from bundle.overrides import check_command_line

    print_input_errors_as_sentences()
    check_command_line(sys.argv)
    keep_freed_memory()
    keep_to_quota()


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
