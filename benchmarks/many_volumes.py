"""Memory, open files, processor and time over a batch of volumes: ``python -m benchmarks.many_volumes``.

A thousand volumes are the MNI head on a grid of 3 mm, each with its own noise, segmented by ``scripts.segment`` with
the shipped network on a grid of 32 mm and without registration: the same program, made quick. The masks mean nothing.
With ``--count 100 --whole`` they are heads of 1 mm outside of MNI space, and the command is as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from nibabel.processing import resample_to_output
from tqdm import tqdm

from benchmarks.volumes import write_heads
from bundle.files import bundle_root
from scripts.command import run_command

__all__ = ["Moment", "many_volumes"]

_GRID_MM, _NETWORK_MM = 3.0, 32.0
_SECONDS_BETWEEN = 1.0


class Moment(NamedTuple):
    """What the program and its processes held at one moment.

    Args:
        seconds: since the program began.
        volumes: that were done.
        program_mb: resident memory of the program itself; what processes share is counted in parts.
        workers_mb: of its processes together.
        files: that were open in all of them, pipes and sockets among them.
        processor_seconds: that all of them have used.
    """

    seconds: float
    volumes: int
    program_mb: float
    workers_mb: float
    files: int
    processor_seconds: float


def _write_volumes(folder: Path, count: int) -> None:
    from bundle.mni import TEMPLATE

    head = resample_to_output(nib.load(TEMPLATE), (_GRID_MM,) * 3, order=1)
    voxels, random = np.asarray(head.dataobj), np.random.default_rng(0)
    for number in tqdm(range(count), desc="writing volumes"):
        noisy = voxels + random.normal(0, 0.02 * voxels.max(), voxels.shape)
        nib.save(nib.Nifti1Image((noisy.clip(0) * 100).astype(np.int16), head.affine), folder / f"{number:04d}.nii.gz")


def _coarse_weights(folder: Path) -> Path:
    """Return a copy of the shipped weights with settings of a grid on which a head has half a dozen slices."""
    shipped = Path(bundle_root()) / "models" / "model.pt"
    weights = Path(shutil.copy(shipped, folder / "model.pt"))
    settings = json.loads(shipped.with_suffix(".json").read_text())
    weights.with_suffix(".json").write_text(json.dumps({**settings, "spacing_mm": _NETWORK_MM, "space": "native"}))
    return weights


class _Held(NamedTuple):
    """What one process holds: megabytes (its proportional set size), open files, processor seconds used."""

    megabytes: float = 0.0
    files: int = 0
    processor_seconds: float = 0.0


def _held(pid: int) -> _Held:
    """Return what a process holds; all 0 for one that has ended."""
    process = Path(f"/proc/{pid}")
    with suppress(OSError, StopIteration):
        lines = (process / "smaps_rollup").read_text().splitlines()
        kilobytes = int(next(line.split()[1] for line in lines if line.startswith("Pss:")))
        ticks = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        return _Held(kilobytes / 1024, len(list((process / "fd").iterdir())), seconds)
    return _Held()


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process began, and those that they began."""
    with suppress(OSError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [*children, *chain.from_iterable(map(_descendants, children))]
    return []


def _watch(process: subprocess.Popen, records: Path, count: int) -> Iterator[Moment]:
    """Yield a moment every second until the program ends."""
    start = time.monotonic()
    used: dict[int, float] = {}
    with tqdm(total=count, desc="volumes") as bar:
        while process.poll() is None:
            volumes = len(list(records.glob("*.json")))
            bar.update(volumes - bar.n)
            held = {pid: _held(pid) for pid in (process.pid, *_descendants(process.pid))}
            used |= {pid: its.processor_seconds for pid, its in held.items() if its.processor_seconds}
            program = held.pop(process.pid)
            workers_mb = sum(worker.megabytes for worker in held.values())
            files = program.files + sum(worker.files for worker in held.values())
            yield Moment(time.monotonic() - start, volumes, program.megabytes, workers_mb, files, sum(used.values()))
            time.sleep(_SECONDS_BETWEEN)


def _seconds_a_volume(moments: list[Moment], parts: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return the volumes done and the seconds that each took, in equal parts of the run."""
    done, seconds = np.array([(moment.volumes, moment.seconds) for moment in moments]).T
    marks = np.linspace(done[done > 0].min(), done.max(), parts + 1)
    reached = np.interp(marks, *np.maximum.accumulate([done, seconds], axis=1))
    return marks[1:], np.diff(reached) / np.diff(marks)


def _save_chart(moments: list[Moment], path: Path) -> None:
    figure = Figure(figsize=(7, 6), layout="constrained")
    memory, files, pace = figure.subplots(3, 1, sharex=True)
    volumes = [moment.volumes for moment in moments]
    memory.plot(volumes, [moment.program_mb for moment in moments], label="program")
    memory.plot(volumes, [moment.workers_mb for moment in moments], label="its two workers")
    memory.legend(frameon=False)
    memory.set(ylabel="memory, MB", ylim=(0, None))
    files.plot(volumes, [moment.files for moment in moments])
    files.set(ylabel="open files", ylim=(0, None))
    pace.step(*_seconds_a_volume(moments), where="pre")
    pace.set(ylabel="seconds a volume", xlabel="volumes done", ylim=(0, None))
    figure.savefig(path, dpi=100)


def _print_course(moments: list[Moment], count: int) -> None:
    """Print means over the second tenth and the last: the first includes the start."""
    print(f"\n{'volumes':<16}{'program, MB':>12}{'workers, MB':>12}{'open files':>12}{'s a volume':>12}")
    for first, last in ((0.1, 0.2), (0.9, 1.0)):
        part = [moment for moment in moments if first * count <= moment.volumes <= last * count]
        program, workers, files = (np.mean(values) for values in list(zip(*part, strict=True))[2:5])
        pace = (part[-1].seconds - part[0].seconds) / max(part[-1].volumes - part[0].volumes, 1)
        print(f"{first * count:.0f} to {last * count:<9.0f}{program:>12.0f}{workers:>12.0f}{files:>12.1f}{pace:>12.2f}")


def _fit(moments: list[Moment]) -> dict[str, float]:
    """Return a line through the time at which each volume was done, from the first on."""
    first = {moment.volumes: moment.seconds for moment in reversed(moments) if moment.volumes > 0}
    done, seconds = np.array(sorted(first.items())).T
    slope, begin = np.polyfit(done, seconds, 1)
    off = np.abs(seconds - (slope * done + begin)).max()
    return {"seconds_a_volume": slope, "begin_seconds": begin, "largest_deviation": off / seconds.max()}


def many_volumes(chart: str = "docs/many_volumes.png", count: int = 1000, whole: bool = False) -> None:
    """Segment the volumes, and print and draw what was held.

    Args:
        chart: the PNG to write; the numbers go to runs/bench/many_volumes.json.
        count: how many volumes.
        whole: heads of 1 mm that must be registered, and the shipped network as it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        scans, output = Path(folder) / "scans", Path(folder) / "results"
        words = [sys.executable, "-m", "scripts.segment", str(scans), str(output), "--noprogress"]
        if whole:
            write_heads(scans, count)
        else:
            scans.mkdir()
            _write_volumes(scans, count)
            words.append(f"--weights={_coarse_weights(Path(folder))}")
        process = subprocess.Popen(words, cwd=bundle_root(), stdout=subprocess.PIPE, text=True)
        moments = list(_watch(process, output / "records", count))
        print(process.communicate()[0])
    if process.returncode:
        raise SystemExit(f"The batch ended with exit code {process.returncode}.")
    _save_chart(moments, Path(chart))
    _print_course(moments, count)
    cores = len(os.sched_getaffinity(0))
    found = {
        "count": count,
        "cores": cores,
        "busy": moments[-1].processor_seconds / moments[-1].seconds / cores,
        "peak_mb": max(moment.program_mb + moment.workers_mb for moment in moments),
        **_fit(moments),
    }
    print(", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    path = Path(bundle_root()) / "runs" / "bench" / "many_volumes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run_command(many_volumes)
