"""A real Orthanc server on loopback, in a folder of its own, and requests to it over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A server that can be killed and started again on the same folder.

    Args:
        folder: of its storage.
        receiver_port: of the node that it calls STROKE.
    """

    def __init__(self, folder: Path, receiver_port: int) -> None:
        if PROGRAM is None:
            pytest.fail("Orthanc is missing: as root, apt-get install orthanc", pytrace=False)
        self.http_port, self.dicom_port = free_port(), free_port()
        self.config = folder / "orthanc.json"
        storage = folder / "orthanc"
        storage.mkdir(parents=True)
        settings = {
            "Name": "test",
            "StorageDirectory": str(storage),
            "IndexDirectory": str(storage),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": {"stroke": ["STROKE", "127.0.0.1", receiver_port]},
            "OverwriteInstances": False,
        }
        self.config.write_text(json.dumps(settings))
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([str(PROGRAM), str(self.config)], **quiet)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "Orthanc ended"
            try:
                self.get("/system")
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("Orthanc does not answer")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self._ask(path))

    def upload(self, files: Iterable[Path]) -> None:
        for file in files:
            self._ask("/instances", file.read_bytes())

    def send(self, study: str) -> str:
        """Start to send a study to the receiver, and return the name of the job."""
        body = {"Resources": [study], "Synchronous": False}
        return json.loads(self._ask("/modalities/stroke/store", json.dumps(body).encode()))["ID"]

    def job(self, name: str) -> str:
        """Return the state of a job: "Success", "Failure", "Running", ..."""
        return self.get(f"/jobs/{name}")["State"]

    def echo(self) -> None:
        self._ask("/modalities/stroke/echo", b"{}")

    def studies(self) -> dict[str, str]:
        """Return Orthanc's name of each study, by its UID."""
        return {study["MainDicomTags"]["StudyInstanceUID"]: study["ID"] for study in self.get("/studies?expand")}

    def segmentations(self, study: str) -> list[Dataset]:
        """Return the DICOM segmentations of a study."""
        series = [one for one in self.get(f"/studies/{study}/series") if one["MainDicomTags"]["Modality"] == "SEG"]
        instances = [instance for one in series for instance in one["Instances"]]
        return [pydicom.dcmread(BytesIO(self._ask(f"/instances/{instance}/file"))) for instance in instances]
