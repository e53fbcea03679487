"""A real MONAI Label server on loopback, with the packaged bundle in its app, and what clients ask of it over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import requests

from scripts.package import NAME
from tests.package.conftest import ROOT

BIN = ROOT / ".venv-label" / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LabelServer:
    """MONAI Label's app for bundles with ours, started as docs/monai-label.md has it.

    Args:
        folder: where the app is made; its log is there.
        packaged: the folder of the packaged bundle, which is copied.
        studies: the folder of the volumes.
    """

    def __init__(self, folder: Path, packaged: Path, studies: Path) -> None:
        assert (BIN / "monailabel").exists(), "make test-label makes its environment"
        self.folder, self.studies = folder, studies
        self.bundle = folder / "monaibundle" / "model" / NAME
        self.log = folder / "server.log"
        self.address = f"http://127.0.0.1:{free_port()}"
        # As an activated environment has it, without what this one hands on.
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONHOME"},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).with_name("cpu")),
        }
        self._run("apps", "--download", "--name", "monaibundle", "--output", str(folder))
        shutil.copytree(packaged, self.bundle)

    def _run(self, *words: str) -> None:
        subprocess.run([BIN / "monailabel", *words], env=self.environment, cwd=self.folder, check=True)

    def start(self) -> None:
        words = ["start_server", "--app", self.folder / "monaibundle", "--studies", self.studies]
        words += ["--host", "127.0.0.1", "--port", self.address.rpartition(":")[2]]
        words += ["--conf", "models", NAME, "--conf", "zoo_source", "local", "--conf", "sam2", "false"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "monailabel", *words], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log_end()
            try:
                self.info()
                return
            except requests.ConnectionError:
                time.sleep(0.5)
        raise AssertionError(f"The server does not answer: {self.log_end()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)

    def log_end(self) -> str:
        return self.log.read_text(errors="replace")[-5000:]

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.address}{path}", timeout=600, **options)

    def json(self, method: str, path: str, **options: Any) -> Any:
        answer = self.ask(method, path, **options)
        assert answer.ok, f"{answer.text}\n{self.log_end()}"
        return answer.json()

    def info(self) -> dict[str, Any]:
        return self.json("GET", "/info/")

    def panel(self, section: str) -> dict[str, Any]:
        """What 3D Slicer sends of its options, of "models" or "trainers": all, the first where there is a choice."""
        config = self.info()[section][NAME]["config"]
        return {name: value[0] if isinstance(value, list) else value for name, value in config.items()}

    def ask_mask(self, image: str, **params: Any) -> requests.Response:
        wanted = {"result_extension": ".nii.gz", "result_dtype": "uint8", **params}
        return self.ask("POST", f"/infer/{NAME}?image={image}&output=image", data={"params": json.dumps(wanted)})

    def mask(self, image: str, **params: Any) -> nib.Nifti1Image:
        answer = self.ask_mask(image, **params)
        assert answer.ok, f"{answer.text}\n{self.log_end()}"
        file = self.folder / "answer.nii.gz"
        file.write_bytes(answer.content)
        read = nib.load(file)
        return nib.Nifti1Image(read.get_fdata().astype(read.get_data_dtype()), read.affine)

    def add_image(self, name: str, file: Path) -> None:
        with file.open("rb") as stream:
            self.json("PUT", f"/datastore/?image={name}", files={"file": (file.name, stream)})

    def submit_label(self, image: str, file: Path) -> None:
        with file.open("rb") as stream:
            self.json("PUT", f"/datastore/label?image={image}&tag=final", files={"label": (file.name, stream)})

    def wait_for(self, task: str) -> dict[str, Any]:
        """The end of a task that runs beside the server, "/train/" or "/batch/infer"."""
        deadline = time.monotonic() + 1200
        while time.monotonic() < deadline:
            status = self.json("GET", task)
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                return status
            time.sleep(1)
        raise AssertionError(f"{task} does not end: {self.log_end()}")
