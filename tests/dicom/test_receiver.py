"""The receiver: which peers it answers, when a study is complete, what it sends, and what follows a failure."""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from bundle.dicom.receiver import Peer, Receiver
from bundle.dicom.spool import Spool
from bundle.errors import InputError
from tests.dicom.orthanc import free_port
from tests.dicom.scans import in_study, save

pytestmark = pytest.mark.dicom

QUIET_S = 0.6


class Archive:
    """A peer that stores what it gets, or answers with another status."""

    def __init__(self) -> None:
        self.port, self.got, self.status = free_port(), [], 0x0000
        self.entity = AE("PACS")
        self.entity.add_supported_context(SegmentationStorage)

    def _store(self, event: evt.Event) -> int:
        if self.status == 0x0000:
            self.got.append(str(event.dataset.SOPInstanceUID))
        return self.status

    @contextmanager
    def listening(self) -> Iterator[None]:
        handlers = [(evt.EVT_C_STORE, self._store)]
        server = self.entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()


@pytest.fixture
def archive() -> Archive:
    return Archive()


class Segment:
    """A stand-in for the network: an empty segmentation of each study, whose UID is the study's with ``.1``."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.raises: Exception | None = None

    def __call__(self, folder: Path) -> tuple[list[Path], str]:
        self.seen.append((folder.name, len(list(folder.glob("*.dcm")))))
        if self.raises is not None:
            raise self.raises
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = SegmentationStorage, f"{folder.name[:60]}.1"
        made.StudyInstanceUID, made.Modality = folder.name, "SEG"
        made.ensure_file_meta()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder.parent.parent / f"{folder.name}.dcm"
        made.save_as(path, enforce_file_format=True)
        return [path], ""


@contextmanager
def running(spool: Path, segment: Callable, archive: Archive, **options: object) -> Iterator[int]:
    """Run a receiver, and yield its port."""
    kept = Spool(spool)
    destination = Peer("PACS", "127.0.0.1", archive.port)
    receiver = Receiver(kept, segment, destination, port=0, quiet_seconds=QUIET_S, **options)
    port, stop = receiver.start(), threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stop,))
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        thread.join(timeout=60)
        kept.close()  # as when its process ends
        assert not thread.is_alive()


@contextmanager
def association(port: int, title: str = "PACS", called: str = "STROKE") -> Iterator:
    entity = AE(title)
    entity.add_requested_context(Verification)
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(SegmentationStorage, ExplicitVRLittleEndian)
    made = entity.associate("127.0.0.1", port, ae_title=called)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def deliver(port: int, series: Sequence[Dataset]) -> list[int]:
    with association(port) as peer:
        return [peer.send_c_store(one).Status for one in series]


def wait_until(reached: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_peers_are_answered_and_strangers_are_not(archive: Archive, tmp_path: Path) -> None:
    senders = [Peer("MR1", "localhost"), Peer("FAR", "192.0.2.1")]
    with running(tmp_path, Segment(), archive, senders=senders) as port:
        for title in ("PACS", "MR1"):
            with association(port, title) as peer:
                assert peer.send_c_echo().Status == 0x0000
        # An unknown title, a known one from another address, another node's name.
        for title, called in (("EVIL", "STROKE"), ("FAR", "STROKE"), ("PACS", "OTHER")):
            with association(port, title, called) as peer:
                assert peer.is_rejected


def test_a_study_is_segmented_after_its_association_has_ended_and_the_quiet_time(
    archive: Archive, head_series: list[Dataset], tmp_path: Path
) -> None:
    segment = Segment()
    study = str(head_series[0].StudyInstanceUID)
    with archive.listening(), running(tmp_path, segment, archive) as port:
        with association(port) as peer:
            assert [peer.send_c_store(one).Status for one in head_series[:5]] == [0x0000] * 5
            time.sleep(4 * QUIET_S)
            assert segment.seen == []  # the association is open still
            assert peer.send_c_store(head_series[5]).Status == 0x0000
        assert segment.seen == []
        wait_until(lambda: archive.got)
        assert segment.seen == [(study, 6)]
        assert archive.got == [f"{study[:60]}.1"]
        # The rest comes later: all of it is segmented together.
        deliver(port, head_series[6:])
        wait_until(lambda: len(archive.got) == 2)
        assert segment.seen[1:] == [(study, 48)]
        assert {file.name for file in (tmp_path / "studies" / study).iterdir()} == {
            f"{one.SOPInstanceUID}.dcm" for one in head_series
        }


def test_repeated_instances_and_its_own_results_are_not_segmented(
    archive: Archive, head_series: list[Dataset], tmp_path: Path
) -> None:
    segment = Segment()
    with archive.listening(), running(tmp_path, segment, archive) as port:
        deliver(port, head_series[:3])
        wait_until(lambda: archive.got)
        own = pydicom.dcmread(next(tmp_path.glob("*.dcm")))
        assert deliver(port, [*head_series[:3], own]) == [0x0000] * 4
        time.sleep(4 * QUIET_S)
        assert len(segment.seen) == len(archive.got) == 1
    with archive.listening(), running(tmp_path, segment, archive):  # nor does a restart
        time.sleep(4 * QUIET_S)
        assert len(segment.seen) == len(archive.got) == 1


def test_results_are_sent_again_until_the_peer_has_stored_them(
    archive: Archive, head_series: list[Dataset], tmp_path: Path
) -> None:
    segment = Segment()
    with running(tmp_path, segment, archive, retry_seconds=(0.2, 0.4)) as port:
        deliver(port, head_series[:3])
        wait_until(lambda: len(segment.seen) >= 2)  # nobody listens
        archive.status = 0xA700  # out of resources
        with archive.listening():
            before = len(segment.seen)
            wait_until(lambda: len(segment.seen) >= before + 2)
            assert archive.got == []
    archive.status = 0x0000
    with archive.listening(), running(tmp_path, segment, archive):  # after a restart
        wait_until(lambda: archive.got)
        time.sleep(4 * QUIET_S)
    assert len(archive.got) == 1


def test_the_error_of_a_failed_study_is_recorded_and_the_next_study_is_done(
    archive: Archive, head_series: list[Dataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segment = Segment()
    segment.raises = InputError("it holds no T1w series.")
    bad, good = in_study(head_series[:3], "A"), in_study(head_series[:3], "B")
    with archive.listening(), running(tmp_path, segment, archive) as port:
        deliver(port, bad)
        wait_until(lambda: list((tmp_path / "states").iterdir()))
        segment.raises = None
        deliver(port, good)
        wait_until(lambda: archive.got)
    study = str(bad[0].StudyInstanceUID)
    assert f"Study {study}: it holds no T1w series." in caplog.text
    kept = (tmp_path / "states" / f"{study}.json").read_text()
    assert '"error": "it holds no T1w series."' in kept
    # A failure is tried again at the next start, as the next start may have what it lacked.
    with archive.listening(), running(tmp_path, segment, archive):
        wait_until(lambda: len(archive.got) == 2)


def test_a_spool_has_one_receiver(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    with pytest.raises(InputError, match=r"is in use by another receiver: give this one a folder of its own\.$"):
        Spool(tmp_path)
    first.close()
    Spool(tmp_path).close()


def test_an_instance_is_complete_or_absent_and_its_name_is_a_uid(head_series: list[Dataset], tmp_path: Path) -> None:
    save(head_series[:1], tmp_path / "scan")
    content = (tmp_path / "scan" / "000.dcm").read_bytes()
    spool = Spool(tmp_path / "spool")
    study = spool.store(content)
    (stored,) = spool.study_folder(study).iterdir()
    assert stored.read_bytes() == content
    leftover = stored.with_name(f".4711.{stored.name}")  # of a process that was killed
    leftover.write_bytes(content[:99])
    spool.close()
    Spool(tmp_path / "spool").close()
    assert not leftover.exists()

    for field, name in (
        ("SOPInstanceUID", "../../etc/passwd"),
        ("SOPInstanceUID", "1." * 40),
        ("StudyInstanceUID", ".."),
    ):
        evil = copy.deepcopy(head_series[1])
        setattr(evil, field, name)
        evil.save_as(tmp_path / "evil.dcm")
        with pytest.raises(InputError, match=rf"{re.escape(repr(name))}.*: UIDs are expected\.$"):
            spool.store((tmp_path / "evil.dcm").read_bytes())


def test_instances_are_removed_some_days_after_their_results_were_sent(
    head_series: list[Dataset], tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool")
    studies = []
    for series in (
        in_study(head_series[:1], "sent"),
        in_study(head_series[:1], "failed"),
        in_study(head_series[:1], "open"),
    ):
        save(series, tmp_path / series[0].PatientID)
        studies.append(spool.store((tmp_path / series[0].PatientID / "000.dcm").read_bytes()))
    spool.finish(studies[0], spool.fingerprint(studies[0]), "", [generate_uid()])
    spool.finish(studies[1], spool.fingerprint(studies[1]), "it is broken.", [])
    assert spool.unfinished() == sorted(studies[1:])
    spool.remove_sent(keep_days=1)
    assert spool.study_folder(studies[0]).exists()
    spool.remove_sent(keep_days=-1)
    assert [spool.study_folder(study).exists() for study in studies] == [False, True, True]
    assert spool.state(studies[0]) is None


@pytest.mark.parametrize("text", ["PACS", "PACS@", "@host:1", "PACS@host:x", "A_TITLE_OF_17_LETTERS@host:104"])
def test_text_that_does_not_describe_a_peer_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"is not a DICOM peer: AE_TITLE@HOST:PORT is expected, as PACS@10\.0\.0\.7:104"
    ):
        Peer.parse(text)


def test_peers_are_parsed_and_checked(archive: Archive, tmp_path: Path) -> None:
    assert Peer.parse("PACS@10.0.0.7:104") == ("PACS", "10.0.0.7", 104)
    assert Peer.parse(" MR1@localhost") == ("MR1", "localhost", 0)
    spool = Spool(tmp_path)
    with pytest.raises(InputError, match=r"^PACS@localhost has no port to send to"):
        Receiver(spool, Segment(), Peer("PACS", "localhost"))
    with pytest.raises(InputError, match=r"^The host of PACS@nowhere\.invalid:104 is not known"):
        Receiver(spool, Segment(), Peer("PACS", "nowhere.invalid", 104))
    with running(tmp_path / "other", Segment(), archive) as port, pytest.raises(InputError, match=r"^Cannot listen at"):
        Receiver(spool, Segment(), Peer("PACS", "localhost", 104), port=port).start()
