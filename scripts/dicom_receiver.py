"""A DICOM node that segments what it gets: ``python -m scripts.dicom_receiver SPOOL --peer PACS@10.0.0.7:104``."""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.options import SegmentOptions
from scripts.command import run_command, with_options

if TYPE_CHECKING:
    from bundle.dicom.receiver import Receiver

__all__ = ["receive"]

_OPTIONS = ("structured_report", "threshold", "smallest_lesion_ml", "on_failure", "weights", "space", "backend")


@with_options(SegmentOptions, _OPTIONS)
def receive(
    spool: str,
    peer: str,
    senders: str = "",
    ae_title: str = "STROKE",
    host: str = "127.0.0.1",
    port: int = 11112,
    quiet_seconds: float = 30.0,
    keep_days: float = 7.0,
    **options: Any,
) -> None:
    """Receive DICOM studies, segment stroke lesions in the T1w series of each, and send the masks back.

    Not for clinical use. The results of each complete study are written to SPOOL/results as by scripts.segment, and its
    DICOM segmentation is sent to the peer. After any interruption, the next start continues with the studies that were
    not segmented or not sent. Why a study cannot be segmented is written to SPOOL/results/segment.log and
    SPOOL/states. Ctrl-C stops the command.

    Args:
        spool: the folder of received studies, their states and results.
        peer: AE_TITLE@HOST:PORT of the node that gets the masks; it may send studies too.
        senders: AE_TITLE@HOST of other nodes that may send studies, separated by commas. All others are rejected.
        ae_title: the title of this node.
        host: the address to listen at; 0.0.0.0 for all addresses of this computer.
        port: the port to listen at.
        quiet_seconds: a study is complete when no instance of it has arrived for this long.
        keep_days: how long instances are kept after the masks of their study were sent.
    """
    from bundle.dicom.files import check_installed

    check_installed()
    from bundle.dicom.receiver import Peer, Receiver, segment_study
    from bundle.dicom.spool import Spool
    from bundle.processes import keep_to_quota
    from bundle.segmenter import make_batch
    from bundle.volumes.output import begin_output

    asked = SegmentOptions(**options)
    keep_to_quota()
    destination = Peer.parse(peer)
    others = [Peer.parse(sender) for sender in senders.split(",") if sender.strip()]
    folder = Path(spool).resolve()
    kept, results = Spool(folder), folder / "results"
    batch, _ = make_batch(asked, results)
    begin_output(results)
    logging.getLogger("bundle").addHandler(logging.StreamHandler())
    segment = partial(segment_study, batch, structured_report=asked.structured_report)
    receiver = Receiver(kept, segment, destination, others, ae_title, host, port, quiet_seconds, keep_days)
    where = f"{ae_title} at {host}:{receiver.start()}"
    print(f"Listening as {where}; masks go to {destination}. Not for clinical use.", flush=True)
    _serve(receiver)


def _serve(receiver: Receiver) -> None:
    """Receive until Ctrl-C."""
    try:
        receiver.run(threading.Event())
    except KeyboardInterrupt:
        print("Stopped: the next start continues from here.", file=sys.stderr)


if __name__ == "__main__":
    run_command(receive, input_error_code=2)
