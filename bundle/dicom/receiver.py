"""A DICOM node that receives studies from its peers, segments them when they are complete, and sends results back."""

from __future__ import annotations

import logging
import re
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
_STORED = (_SUCCESS, 0xB000, 0xB006, 0xB007)  # the others are the standard's warnings on what was stored
_NOT_RECOGNISED = (0x01, 0x01, 0x03)  # rejected permanently, by the service user: calling AE title not recognised
_NETWORK_S = 60
_CONNECTIONS = 200  # ten silent ones would keep all peers out until they time out
_CLEANING_S = 3600.0
_POLL_S = 0.2


class Peer(NamedTuple):
    """Another DICOM node.

    Args:
        ae_title: the title of its application entity.
        host: name or address.
        port: the port at which it listens; 0 for a peer that only sends.
    """

    ae_title: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Return the peer that ``AE_TITLE@HOST:PORT`` or ``AE_TITLE@HOST`` describes.

        Raises:
            InputError: if the text is neither.
        """
        parts = re.fullmatch(r"([^@]{1,16})@([^:]+)(?::(\d*))?", text.strip())
        if parts is None:
            raise InputError(f"{text!r} is not a DICOM peer: AE_TITLE@HOST:PORT is expected, as PACS@10.0.0.7:104.")
        return cls(parts[1], parts[2], int(parts[3] or 0))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}" + f":{self.port}" * bool(self.port)

    def addresses(self) -> set[str]:
        """Return the current addresses of its host.

        Raises:
            InputError: if the host is not known.
        """
        try:
            return {str(found[4][0]) for found in socket.getaddrinfo(self.host, None)}
        except OSError as error:
            raise InputError(f"The host of {self} is not known: {error.strerror or error}.") from error


def send(files: Sequence[Path], peer: Peer, ae_title: str) -> list[str]:
    """Send DICOM objects to a peer and wait until it confirms that each is stored.

    Args:
        files: segmentations and structured reports.
        peer: the receiver.
        ae_title: of this node.

    Returns:
        their SOPInstanceUIDs.

    Raises:
        ConnectionError: if the peer cannot be reached, or does not store one of them.
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
            except (RuntimeError, ValueError) as error:  # it does not accept this SOP class, or is disconnected
                raise ConnectionError(f"{peer} did not take {file.name}: {error}") from error
            if status not in _STORED:
                answer = "no answer" if status is None else f"status 0x{status:04X}"
                raise ConnectionError(f"{peer} did not store {file.name} ({answer})")
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
    volumes, lines = find_studies(files, folder.parent, output, structured_report=structured_report)
    for line in lines:
        _log.info("%s", line)
    records = batch.run(volumes)
    made = [output / file for record in records for file in record.get("files", ()) if file.endswith(".dcm")]
    return made, " ".join(record["error"] for record in records if record["error"])


@dataclass
class Receiver:
    """A DICOM node that answers C-ECHO and C-STORE of its peers only.

    A study is complete when the associations that sent it have ended and no instance has arrived for a while. If more
    instances arrive later, the whole study is segmented again.

    Args:
        spool: where studies are kept.
        segment: returns, for the folder of a study, the DICOM objects to send, and what failed, in a sentence or empty.
        destination: the peer that gets the results; it may send studies too.
        senders: other peers that may send studies.
        ae_title: of this node.
        host: the address to listen at.
        port: the port to listen at; 0 for any that is free.
        quiet_seconds: how long no instance must have arrived.
        keep_days: how long a study's instances are kept after its results were sent.
        retry_seconds: the first wait before results are sent again, which doubles each time, and the longest.
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
    retry_seconds: tuple[float, float] = (10.0, 600.0)
    _due: dict[str, float] = field(default_factory=dict, init=False)
    _retry_s: dict[str, float] = field(default_factory=dict, init=False)
    _arriving: dict[Association, set[str]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        if not self.destination.port:
            raise InputError(f"{self.destination} has no port to send to: AE_TITLE@HOST:PORT is expected.")
        peers = (self.destination, *self.senders)
        self._trusted = {(peer.ae_title, address) for peer in peers for address in peer.addresses()}
        self._entity = entity = AE(self.ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = _CONNECTIONS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _NETWORK_S
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))

    def start(self) -> int:
        """Start to listen, and continue with the studies that an earlier program left open.

        Returns:
            the port.

        Raises:
            InputError: if it cannot listen there.
        """
        for study in self.spool.unfinished():
            self._await(study)
        handlers = [(evt.EVT_REQUESTED, self._reject_strangers), (evt.EVT_C_STORE, self._store)]
        try:
            server = self._entity.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise InputError(f"Cannot listen at {self.host}:{self.port}: {error.strerror or error}.") from error
        return int(server.server_address[1])

    def run(self, stop: threading.Event) -> None:
        """Segment complete studies and send the results, one study after the other, until ``stop`` is set."""
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
            self._arriving = {one: studies for one, studies in self._arriving.items() if one.is_alive()}
            arriving = set().union(*self._arriving.values())
            now = time.monotonic()
            return [study for study, due in self._due.items() if due <= now and study not in arriving]

    def _reject_strangers(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        caller = (requestor.primitive.calling_ae_title.strip(), requestor.address)
        if caller not in self._trusted:
            _log.warning("Refused %s@%s: it is not a peer.", *caller)
            event.assoc.acse.send_reject(*_NOT_RECOGNISED)
            event.assoc.kill()

    def _store(self, event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID in _RESULTS:
            # A peer that forwards whatever it gets would send each result back, and get another, forever.
            return _SUCCESS
        try:
            study = self.spool.store(event.encoded_dataset())
        except OSError as error:
            _log.error("An instance could not be stored: %s.", error.strerror or error)
            return _OUT_OF_RESOURCES
        except Exception as error:  # pydicom raises errors of many kinds on a damaged object
            _log.error("An instance could not be understood: %s", " ".join(str(error).split()))
            return _CANNOT_UNDERSTAND
        with self._lock:
            self._arriving.setdefault(event.assoc, set()).add(study)
        self._await(study)
        return _SUCCESS

    def _process(self, study: str) -> None:
        due, (first_s, longest_s) = self._due[study], self.retry_seconds
        try:
            if not self.spool.is_sent(study):
                self._segment_and_send(study)
        except OSError as error:  # of the peer or the disk, not of the study
            delay = self._retry_s[study] = min(2 * self._retry_s.get(study, first_s / 2), longest_s)
            _log.error("Study %s: %s; next attempt in %.0f s.", study, error, delay)
            with self._lock:
                self._due[study] = time.monotonic() + delay
            return
        self._retry_s.pop(study, None)
        with self._lock:
            if self._due[study] == due:  # no instance has arrived meanwhile
                del self._due[study]

    def _segment_and_send(self, study: str) -> None:
        folder, fingerprint = self.spool.study_folder(study), self.spool.fingerprint(study)
        try:
            files, error = self.segment(folder)
        except OSError:
            raise
        except Exception as reason:  # one study must not stop the others
            files, error = [], explain(folder, reason)
        sent = send(files, self.destination, self.ae_title) if files else []
        self.spool.finish(study, fingerprint, error, sent)
        if error:
            _log.error("Study %s: %s", study, error)
        if sent:
            _log.info("Study %s: %d objects sent to %s.", study, len(sent), self.destination)
