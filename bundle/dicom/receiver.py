"""A DICOM node: takes studies from its peers, has them segmented when they are complete, and sends the results back."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from bundle.dicom.conversion import TRANSFER_SYNTAXES
from bundle.dicom.files import find_dicom_files
from bundle.dicom.source import find_studies
from bundle.dicom.spool import Spool
from bundle.errors import InputError, explain
from bundle.volumes.batch import VolumeBatch

__all__ = ["Peer", "Receiver", "segment_study", "send"]

_log = logging.getLogger(__name__)

_RESULTS = (SegmentationStorage, ComprehensiveSRStorage)
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_STORED = (_SUCCESS, 0xB000, 0xB006, 0xB007)  # with the standard's warnings, it is stored
_NOT_RECOGNISED = (0x01, 0x01, 0x03)  # rejected for good, by this user: calling AE title not recognised
_NETWORK_S = 60
_FIRST_RETRY_S, _LONGEST_RETRY_S = 10.0, 600.0
_CLEANING_S = 3600.0
_POLL_S = 0.2


class Peer(NamedTuple):
    """Another DICOM node.

    Args:
        ae_title: its application entity's title.
        host: name or address.
        port: where it listens; 0 for one that only sends.
    """

    ae_title: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Peer:
        """From ``AE_TITLE@HOST:PORT``, or ``AE_TITLE@HOST``.

        Raises:
            InputError: when it is neither.
        """
        title, _, address = text.strip().partition("@")
        host, _, port = address.partition(":")
        if not (0 < len(title) <= 16 and host and (port.isdecimal() or not port)):
            raise InputError(f"{text!r} is no DICOM peer: AE_TITLE@HOST:PORT is expected, as PACS@10.0.0.7:104.")
        return cls(title, host, int(port or 0))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}" + f":{self.port}" * bool(self.port)

    def addresses(self) -> set[str]:
        """Those that its host has now.

        Raises:
            InputError: when the host is not known.
        """
        try:
            return {str(found[4][0]) for found in socket.getaddrinfo(self.host, None)}
        except OSError as error:
            raise InputError(f"The host of {self} is not known: {error.strerror or error}.") from error


def send(files: Sequence[Path], peer: Peer, ae_title: str) -> list[str]:
    """Sends DICOM objects to a peer and waits until it says that it has stored each.

    Args:
        files: segmentations and structured reports.
        peer: where to.
        ae_title: of this node.

    Returns:
        their SOPInstanceUIDs.

    Raises:
        ConnectionError: when the peer cannot be reached, or does not store one of them.
    """
    entity = AE(ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _NETWORK_S
    for kind in _RESULTS:
        entity.add_requested_context(kind, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title)
    if not association.is_established:
        raise ConnectionError(f"{peer} cannot be reached, or does not accept {ae_title}")
    sent = []
    try:
        for file in files:
            made = pydicom.dcmread(file)
            try:
                status = association.send_c_store(made).get("Status")
            except (RuntimeError, ValueError) as error:  # it does not take this kind of object, or has gone
                raise ConnectionError(f"{peer} did not take {file.name}: {error}") from error
            if status not in _STORED:
                told = "no answer" if status is None else f"status 0x{status:04X}"
                raise ConnectionError(f"{peer} did not store {file.name} ({told})")
            sent.append(str(made.SOPInstanceUID))
    finally:
        association.release()
    return sent


def segment_study(batch: VolumeBatch, folder: Path, structured_report: bool = False) -> tuple[list[Path], str]:
    """Segment the T1w series of a study.

    Args:
        batch: ready to run.
        folder: of the study.
        structured_report: write the volumes of the lesions as a structured report too.

    Returns:
        the DICOM objects to send, and a sentence on what failed; empty if nothing did.
    """
    output = batch.ledger.output
    files = find_dicom_files(folder, output)
    studies = find_studies(files, folder.parent, output, structured_report=structured_report)
    for line in (line for study in studies for line in study.lines):
        _log.info("%s", line)
    records = batch.run([study.volume for study in studies])
    made = [output / file for record in records for file in record.get("files", ()) if file.endswith(".dcm")]
    return made, " ".join(record["error"] for record in records if record["error"])


@dataclass
class Receiver:
    """Answers C-ECHO and C-STORE of its peers, and of nobody else.

    A study is complete when the associations that brought it are over and nothing has come for a while. What is left
    of it comes later: then the study is segmented anew, as a whole.

    Args:
        spool: where studies are kept.
        segment: from a study's folder to the DICOM objects to send, and a sentence on what failed, or none.
        destination: the peer that gets the results, and may send.
        senders: other peers that may send.
        ae_title: of this node.
        host: address to listen at.
        port: to listen at; 0 for any that is free.
        quiet_seconds: how long nothing must have come.
        keep_days: how long a study's instances are kept after its results were sent.
    """

    spool: Spool
    segment: Callable[[Path], tuple[list[Path], str]]
    destination: Peer
    senders: Sequence[Peer] = ()
    ae_title: str = "STROKE"
    host: str = "127.0.0.1"
    port: int = 11112
    quiet_seconds: float = 30.0
    keep_days: float = 7.0
    _due: dict[str, float] = field(default_factory=dict, init=False)
    _retry_s: dict[str, float] = field(default_factory=dict, init=False)
    _bringing: dict[Association, set[str]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        if not self.destination.port:
            raise InputError(f"{self.destination} has no port to send to: AE_TITLE@HOST:PORT is expected.")
        peers = (self.destination, *self.senders)
        self._trusted = {(peer.ae_title, address) for peer in peers for address in peer.addresses()}
        entity = AE(self.ae_title)
        entity.require_called_aet = True
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _NETWORK_S
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
        self._entity = entity
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> int:
        """Begins to listen, and takes up what an earlier program left open.

        Returns:
            the port.

        Raises:
            InputError: when it cannot listen there.
        """
        for study in self.spool.unfinished():
            self._await(study)
        handlers = [
            (evt.EVT_REQUESTED, self._reject_strangers),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            self._server = self._entity.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise InputError(f"{self.host}:{self.port} cannot be listened at: {error.strerror or error}.") from error
        return int(self._server.server_address[1])

    def run(self, stop: threading.Event) -> None:
        """Segments what is complete and sends the results, one study after the other, until it is told to stop."""
        cleaned = -_CLEANING_S
        while not stop.wait(_POLL_S):
            if time.monotonic() - cleaned > _CLEANING_S:
                self.spool.remove_sent(self.keep_days)
                cleaned = time.monotonic()
            for study in self._complete():
                self._process(study)
        self._entity.shutdown()

    def _await(self, study: str) -> None:
        with self._lock:
            self._due[study] = time.monotonic() + self.quiet_seconds

    def _complete(self) -> list[str]:
        with self._lock:
            self._bringing = {one: studies for one, studies in self._bringing.items() if one.is_alive()}
            underway = set().union(*self._bringing.values())
            now = time.monotonic()
            return [study for study, due in self._due.items() if due <= now and study not in underway]

    def _reject_strangers(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        caller = (requestor.primitive.calling_ae_title.strip(), requestor.address)
        if caller not in self._trusted:
            _log.warning("Refused %s@%s: it is no peer.", *caller)
            event.assoc.acse.send_reject(*_NOT_RECOGNISED)
            event.assoc.kill()

    def _store(self, event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID in _RESULTS:
            # A peer that passes on all it gets would send each result back, and get another, for ever.
            return _SUCCESS
        try:
            study = self.spool.store(event.encoded_dataset())
        except OSError as error:
            _log.error("An instance could not be stored: %s.", error.strerror or error)
            return _OUT_OF_RESOURCES
        except Exception as error:  # whatever a damaged object makes a reader raise
            _log.error("An instance could not be understood: %s", " ".join(str(error).split()))
            return _CANNOT_UNDERSTAND
        with self._lock:
            self._bringing.setdefault(event.assoc, set()).add(study)
        self._await(study)
        return _SUCCESS

    def _process(self, study: str) -> None:
        folder, due = self.spool.study_folder(study), self._due[study]
        try:
            fingerprint = self.spool.fingerprint(study)
            state = self.spool.state(study)
            if state is None or state.error or state.fingerprint != fingerprint:
                self._segment_and_send(study, folder, fingerprint)
        except OSError as error:  # the peer's, or the disk's: neither is the study's fault
            delay = self._retry_s[study] = min(2 * self._retry_s.get(study, _FIRST_RETRY_S / 2), _LONGEST_RETRY_S)
            _log.error("Study %s: %s; tried again in %.0f s.", study, error, delay)
            with self._lock:
                self._due[study] = time.monotonic() + delay
            return
        self._retry_s.pop(study, None)
        with self._lock:
            if self._due[study] == due:  # nothing has come meanwhile
                del self._due[study]

    def _segment_and_send(self, study: str, folder: Path, fingerprint: str) -> None:
        try:
            files, error = self.segment(folder)
        except OSError:
            raise
        except Exception as reason:  # one study never stops the others
            files, error = [], explain(folder, reason)
        sent = send(files, self.destination, self.ae_title) if files else []
        self.spool.finish(study, fingerprint, error, sent)
        if error:
            _log.error("Study %s: %s", study, error)
        if sent:
            _log.info("Study %s: %d objects sent to %s.", study, len(sent), self.destination)
