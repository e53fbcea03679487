"""Machines of a Ray cluster for tests: nodes that see nothing but each other, and end with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from bundle import bundle_root
from tests.batch.test_survival import descendants

PORT = 6379
ADDRESS = f"127.0.0.1:{PORT}"

_AS_USER = [] if os.geteuid() == 0 else ["--map-root-user"]
_TO_USER = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "120000",  # Ray's own 15 s are too few for a machine that is busy
    "OMP_NUM_THREADS": "2",
}


class Machines:
    """Nodes 127.0.0.1, 127.0.0.2 and so on in a network and a tree of processes of their own."""

    def __enter__(self) -> Machines:
        # Sockets have short names.
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))
        self.nodes: dict[int, subprocess.Popen] = {}
        words = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc", *_AS_USER]
        script = "ip link set lo up && echo ready && exec sleep infinity"
        self.outer = subprocess.Popen(["unshare", *words, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.outer.stdout is not None
        assert self.outer.stdout.readline() == "ready\n", "the namespaces cannot be made"
        self.start(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.outer.kill()  # and with it all that is in there
        self.outer.wait()
        for node in self.nodes.values():
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, words: Sequence[str | Path], **options: object) -> subprocess.Popen:
        """Begins a command in there."""
        inner = descendants(self.outer.pid)[0]
        enter = ["nsenter", "--target", str(inner), "--net", "--pid", "--mount", *_TO_USER]
        environment = os.environ | ENVIRONMENT
        return subprocess.Popen([*enter, *map(str, words)], cwd=bundle_root(), env=environment, text=True, **options)

    def start(self, number: int, cpus: int = 1, before: str = "") -> None:
        """Starts node 127.0.0.NUMBER; the first is the cluster's head.

        Args:
            number: from 1 on.
            cpus: how many volumes it takes at a time.
            before: a command of the shell that runs before, in a view of the file system of its own.
        """
        ray = Path(sys.executable).with_name("ray")
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if number == 1 else [f"--address={ADDRESS}"]
        options = f"--node-ip-address=127.0.0.{number} --num-cpus={cpus} --object-store-memory=80000000 --block"
        words = [str(ray), "start", *where, *options.split(), f"--temp-dir={self.folder}/{number}"]
        if before:
            words = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *words]
        log = (self.folder / f"{number}.log").open("w")
        self.nodes[number] = self.begin(words, stdout=log, stderr=subprocess.STDOUT)
        self._wait(number, log.name)

    def _wait(self, number: int, log: str) -> None:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in Path(log).read_text():
            assert self.nodes[number].poll() is None, Path(log).read_text()[-3000:]
            assert time.monotonic() < deadline, Path(log).read_text()[-3000:]
            time.sleep(0.2)

    def kill(self, number: int) -> None:
        """Kills all processes of a node at once, as when the power fails."""
        node = self.nodes.pop(number)
        for process in [node.pid, *descendants(node.pid)]:
            os.kill(process, signal.SIGKILL)
        node.wait()

    def workers(self, number: int) -> list[int]:
        """The processes of a node that segment at the moment."""
        found = descendants(self.nodes[number].pid)
        return [process for process in found if b"ray::_segment" in Path(f"/proc/{process}/cmdline").read_bytes()]


def segmenting(scans: Path, output: Path, machines: Machines | None = None, **options: object) -> subprocess.Popen:
    """Begins the command, on this machine alone or on the first of a cluster."""
    asked = {"noprogress": True, **({} if machines is None else {"ray": ADDRESS}), **options}
    words = [sys.executable, "-m", "scripts.segment", str(scans), str(output)]
    words += [f"--{name}={value}" for name, value in asked.items()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    if machines is not None:
        return machines.begin(words, **pipes)
    return subprocess.Popen(words, cwd=bundle_root(), env=os.environ | ENVIRONMENT, text=True, **pipes)
