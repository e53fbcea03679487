"""A DICOM node that segments what it is sent: ``python -m scripts.dicom_receiver SPOOL --peer PACS@10.0.0.7:104``."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.acceleration.backends import BackendName
    from bundle.transforms.registration import OnFailure
    from bundle.volumes.batch import VolumeBatch

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
    from bundle.dicom.files import check_installed

    check_installed()
    from bundle.dicom.receiver import Peer, Receiver
    from bundle.dicom.spool import Spool
    from bundle.processes import keep_to_quota
    from bundle.segmenter import begin_output, make_batch

    keep_to_quota()
    destination = Peer.parse(str(peer))
    others = [Peer.parse(sender) for sender in str(senders).split(",") if sender.strip()]
    folder = Path(str(spool)).resolve()
    config = {
        "threshold": threshold,
        "on_failure": on_failure,
        "ckpt_path": weights,
        "space": space,
        "amp": True,
        "backend": backend,
        "progress": False,
        "inferer::progress": False,
    }
    kept = Spool(folder)
    batch, _ = make_batch(
        folder / "results",
        config,
        {"smallest_lesion_ml": smallest_lesion_ml},
        workers=0,
        dicom={"structured_report": structured_report},
    )
    begin_output(folder / "results", alone=True)
    logging.getLogger("bundle").addHandler(logging.StreamHandler())
    receiver = Receiver(
        kept,
        lambda study: _segment(study, batch),
        destination,
        others,
        ae_title=str(ae_title),
        host=host,
        port=port,
        quiet_seconds=quiet_seconds,
        keep_days=keep_days,
    )
    print(f"Listening as {ae_title} at {host}:{receiver.start()}; masks go to {destination}. Not for clinical use.")
    sys.stdout.flush()
    try:
        receiver.run(threading.Event())
    except KeyboardInterrupt:
        print("Stopped: the next start goes on from here.", file=sys.stderr)


def _segment(folder: Path, batch: VolumeBatch) -> tuple[list[Path], str]:
    """The DICOM results of a study, and what failed."""
    from bundle.dicom.files import find_dicom_files
    from bundle.dicom.studies import find_studies

    output = batch.pipeline.output
    inputs = find_studies(find_dicom_files(folder, output), folder.parent, output)
    for line in (line for study in inputs for line in study.lines):
        logging.getLogger("bundle").info("%s", line)
    records = batch.run([study.volume for study in inputs])
    files = [output / file for record in records for file in record.get("files", ()) if file.endswith(".dcm")]
    return files, " ".join(record["error"] for record in records if record["error"])


if __name__ == "__main__":
    run_command(receive, input_error_code=2)
