"""A receiver in a process of its own, whose network takes no time: ``python -m tests.dicom.loaded SPOOL PORT PACS``."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from bundle.dicom.receiver import Peer, Receiver
from bundle.dicom.spool import Spool

SENDERS = ("MR1", "MR2", "MR3", "MR4", "MR5")
QUIET_S = 4.0


def segment(folder: Path) -> tuple[list[Path], str]:
    """Return an empty segmentation of a study; its UID ends in the number of the study's instances."""
    made = Dataset()
    instances = len(list(folder.glob("*.dcm")))
    made.SOPClassUID, made.SOPInstanceUID = SegmentationStorage, f"{folder.name[:60].rstrip('.')}.{instances}"
    made.StudyInstanceUID, made.Modality = folder.name, "SEG"
    made.ensure_file_meta()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder.parent.parent / "made" / f"{folder.name}.dcm"
    path.parent.mkdir(exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return [path], ""


if __name__ == "__main__":
    spool, port, archive = Path(sys.argv[1]), *map(int, sys.argv[2:])
    senders = [Peer(title, "127.0.0.1") for title in SENDERS]
    receiver = Receiver(
        Spool(spool), segment, Peer("PACS", "127.0.0.1", archive), senders, port=port, quiet_seconds=QUIET_S
    )
    print(f"listening at {receiver.start()}", flush=True)
    receiver.run(threading.Event())
