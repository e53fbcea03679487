"""The received instances, on disk before the sender is answered, and the state of each study."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pydicom

from bundle.errors import InputError
from bundle.files import replacing, write_json

__all__ = ["Spool", "StudyState"]

_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")  # it becomes a file's name, and comes from the network
_DAY_S = 24 * 3600


class StudyState(NamedTuple):
    """The result of a study.

    Args:
        fingerprint: of the instances when the segmentation began.
        error: why it could not be segmented, in a sentence; empty if its results have been sent.
        sent: the SOPInstanceUIDs of the results.
    """

    fingerprint: str
    error: str
    sent: list[str]


class Spool:
    """A folder that outlives the program: SPOOL/studies has the instances, SPOOL/states the state of each study.

    A study is open from its first instance until a state says that exactly these instances are done. A program that was
    killed at any moment therefore finds at its next start what is left to do.

    Args:
        folder: is made if it does not exist.

    Raises:
        InputError: if it cannot be written to, or another program uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.studies, self.states = folder / "studies", folder / "states"
        try:
            self.studies.mkdir(parents=True, exist_ok=True)
            self.states.mkdir(exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise InputError(f"{folder} cannot be written to: {error.strerror or error}.") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, even if it is killed
        except OSError as error:
            raise InputError(f"{folder} is in use by another receiver: give this one a folder of its own.") from error
        self._storing = threading.Lock()
        for unfinished in self.studies.glob("*/.*"):
            unfinished.unlink()

    def close(self) -> None:
        """Let another program use the folder."""
        self._lock_file.close()

    def store(self, content: bytes) -> str:
        """Write an instance to disk, durably, unless the same content is there already.

        Args:
            content: a DICOM file.

        Returns:
            the StudyInstanceUID.

        Raises:
            InputError: if it does not say which instance of which study it is.
            OSError: if it cannot be written.
        """
        header = pydicom.dcmread(BytesIO(content), specific_tags=["StudyInstanceUID", "SOPInstanceUID"])
        study, instance = (str(header.get(name, "")) for name in ("StudyInstanceUID", "SOPInstanceUID"))
        if not (_UID.fullmatch(study) and _UID.fullmatch(instance)):
            raise InputError(f"An instance of study {study!r} is called {instance!r}: UIDs are expected.")
        path = self.study_folder(study) / f"{instance}.dcm"
        with self._storing:
            if path.is_file() and path.read_bytes() == content:
                return study
            with replacing(path) as unfinished, unfinished.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            for folder in (path.parent, self.studies):
                _sync(folder)
        return study

    def study_folder(self, study: str) -> Path:
        """Return the folder of a study's instances."""
        return self.studies / study

    def fingerprint(self, study: str) -> str:
        """Return a hash that changes if an instance is added or replaced."""
        found = sorted(self.study_folder(study).glob("*.dcm"))
        listed = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in found]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def state(self, study: str) -> StudyState | None:
        """Return the result of a study, or None if there is none yet."""
        try:
            return StudyState(**json.loads(self._state_path(study).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            return None

    def finish(self, study: str, fingerprint: str, error: str, sent: Sequence[str]) -> None:
        """Write the result of a study.

        Args:
            study: its UID.
            fingerprint, error, sent: see :class:`StudyState`.
        """
        write_json(StudyState(fingerprint, error, list(sent))._asdict(), self._state_path(study))

    def unfinished(self) -> list[str]:
        """Return the studies that are open, and those that failed: they may be complete by now."""
        return [study for study in self._stored() if not self.is_sent(study)]

    def remove_sent(self, keep_days: float) -> None:
        """Remove the instances of studies whose results were sent that many days ago."""
        for study in self._stored():
            with self._storing:
                if self.is_sent(study) and self._state_path(study).stat().st_mtime < time.time() - keep_days * _DAY_S:
                    shutil.rmtree(self.study_folder(study))
                    self._state_path(study).unlink()

    def is_sent(self, study: str) -> bool:
        """Return whether the results of exactly the stored instances have been sent."""
        state = self.state(study)
        return state is not None and not state.error and state.fingerprint == self.fingerprint(study)

    def _stored(self) -> list[str]:
        return sorted(folder.name for folder in self.studies.iterdir())

    def _state_path(self, study: str) -> Path:
        return self.states / f"{study}.json"


def _sync(folder: Path) -> None:
    """Write the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
