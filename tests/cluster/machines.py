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
from typing import Any

from bundle.files import bundle_root
from tests.batch.test_survival import descendants

PORT = 6379
ADDRESS = f"127.0.0.1:{PORT}"

_AS_USER = [] if os.geteuid() == 0 else ["--map-root-user"]
_TO_USER = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
_ENVIRONMENT = os.environ | {
    # A busy machine is slower than Ray expects.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_niceness": "0",
}


class Machines:
    """Nodes 127.0.0.1, 127.0.0.2 and so on in a network and a tree of processes of their own."""

    def __enter__(self) -> Machines:
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # short, as the names of sockets are
        self.nodes: dict[int, subprocess.Popen] = {}
        words = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc", *_AS_USER]
        # It ends when its input does, which is with the tests however these end; and with it all that is in there.
        script = "ip link set lo up && echo ready && exec cat"
        pipe = subprocess.PIPE
        self.outer = subprocess.Popen(["unshare", *words, "sh", "-c", script], stdin=pipe, stdout=pipe, text=True)
        assert self.outer.stdout is not None
        assert self.outer.stdout.readline() == "ready\n", "the namespaces cannot be made"
        self.start(1)
        return self

    def __exit__(self, *reason: object) -> None:
        self.outer.kill()
        self.outer.communicate()
        for node in self.nodes.values():
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, words: Sequence[str | Path], **options: Any) -> subprocess.Popen:
        """Begins a command in there."""
        first = descendants(self.outer.pid)[0]
        spaces = [f"--target={first}", "--net", "--pid", "--mount", f"--wd={bundle_root()}", *_TO_USER]
        command = ["nsenter", *spaces, *map(str, words)]
        # What runs in the background of a shell, as a CI's tests may, does not hear Ctrl-C otherwise.
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, **options)

    def start(self, number: int, before: str = "") -> None:
        """Starts node 127.0.0.NUMBER, which takes one volume at a time; the first is the cluster's head.

        Args:
            number: from 1 on.
            before: a command of the shell that runs before, in a view of the file system of its own.
        """
        ray = Path(sys.executable).with_name("ray")
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if number == 1 else [f"--address={ADDRESS}"]
        words = [str(ray), "start", *where, f"--node-ip-address=127.0.0.{number}", f"--temp-dir={self.folder}/{number}"]
        words += ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
        if before:
            words = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *words]
        log = self.folder / f"{number}.log"
        with log.open("w") as stream:
            self.nodes[number] = self.begin(words, stdout=stream, stderr=subprocess.STDOUT)
        wait_for(lambda: "Ray runtime started" in log.read_text(), self.nodes[number])

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


def segmenting(
    scans: Path, weights: Path, output: Path, machines: Machines | None = None, **options: object
) -> subprocess.Popen:
    """Begins the command, on this machine alone or on the first of a cluster."""
    where = {"workers": 0} if machines is None else {"ray": ADDRESS}
    asked = {"progress": False, "probability": True, "threshold": 0.1, "weights": weights, **where, **options}
    words = [sys.executable, "-m", "scripts.segment", str(scans), str(output)]
    words += [f"--{name}={value}" for name, value in asked.items()]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=bundle_root(), **pipes) if machines is None else machines.begin(words, **pipes)


def wait_for(condition: Any, process: subprocess.Popen, seconds: float = 600) -> None:
    """Waits until a condition holds, which it must before a process ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.1)
