"""A DICOM node that segments what it is sent: ``python -m scripts.dicom_receiver SPOOL --peer PACS@10.0.0.7:104``."""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.acceleration.backends import BackendName
    from bundle.dicom.receiver import Receiver
    from bundle.transforms.registration import OnFailure

__all__ = ["receive"]


def receive(
    spool: str,
    peer: str,
    senders: str = "",
    ae_title: str = "STROKE",
    host: str = "127.0.0.1",
    port: int = 11112,
    quiet_seconds: float = 30.0,
    keep_days: float = 7.0,
    structured_report: bool = False,
    threshold: float | None = None,
    smallest_lesion_ml: float = 0.025,
    on_failure: OnFailure = "raise",
    weights: str | None = None,
    space: str | None = None,
    backend: BackendName = "auto",
) -> None:
    """Receives DICOM studies, segments stroke lesions in the T1w series of each, and sends the masks back.

    Not for clinical use. Each study that is complete gets the results of scripts.segment in SPOOL/results, and its
    DICOM segmentation is sent to the peer. What is received but not segmented, or segmented but not sent, is taken up
    again at the next start, however the last one ended. A study that cannot be used gets a sentence in
    SPOOL/results/segment.log and in SPOOL/states. Ctrl-C ends it.

    Args:
        spool: the folder of all that it keeps.
        peer: AE_TITLE@HOST:PORT of the node that gets the masks; it may send studies, too.
        senders: AE_TITLE@HOST of others that may send studies, with commas between them. Nobody else is answered.
        ae_title: of this node.
        host: address to listen at; 0.0.0.0 for all of this computer's.
        port: to listen at.
        quiet_seconds: a study is complete when nothing of it has come for so long.
        keep_days: how long instances are kept after their study's masks were sent.
        structured_report: send the volumes of the lesions as a structured report (TID 1500), too.
        threshold: probability from which a voxel is lesion; that of the weights unless given.
        smallest_lesion_ml: smaller lesions are left out.
        on_failure: of the registration to MNI space: "raise" fails the study, "native" segments it where it lies.
        weights: other weights than models/model.pt.
        space: "native" for weights that were trained without registration.
        backend: "openvino" (pip install -r requirements/openvino.txt) or "torch"; "auto" takes the first where it is
            installed.
    """
    arguments = locals()
    from bundle.dicom.files import check_installed

    check_installed()
    from bundle.dicom.receiver import Peer, Receiver, segment_study
    from bundle.dicom.spool import Spool
    from bundle.processes import keep_to_quota
    from bundle.segmenter import SegmentOptions, make_batch
    from bundle.volumes.output import begin_output

    keep_to_quota()
    destination = Peer.parse(peer)
    others = [Peer.parse(sender) for sender in senders.split(",") if sender.strip()]
    folder = Path(spool).resolve()
    kept, results = Spool(folder), folder / "results"
    batch, _ = make_batch(SegmentOptions.from_arguments(arguments), results)
    begin_output(results, alone=True)
    logging.getLogger("bundle").addHandler(logging.StreamHandler())
    segment = partial(segment_study, batch, structured_report=structured_report)
    receiver = Receiver(kept, segment, destination, others, ae_title, host, port, quiet_seconds, keep_days)
    where = f"{ae_title} at {host}:{receiver.start()}"
    print(f"Listening as {where}; masks go to {destination}. Not for clinical use.", flush=True)
    _serve(receiver)


def _serve(receiver: Receiver) -> None:
    """Receive until Ctrl-C."""
    try:
        receiver.run(threading.Event())
    except KeyboardInterrupt:
        print("Stopped: the next start goes on from here.", file=sys.stderr)


if __name__ == "__main__":
    run_command(receive, input_error_code=2)
