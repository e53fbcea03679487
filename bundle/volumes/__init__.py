"""From volumes to lesion masks, tables and a report: what every program that segments shares."""

from bundle.volumes.batch import VolumeBatch
from bundle.volumes.inputs import VolumeInput, find_volumes
from bundle.volumes.ledger import Ledger
from bundle.volumes.pipeline import VolumePipeline, VolumeResult
from bundle.volumes.report import write_report
from bundle.volumes.tables import write_tables

__all__ = [
    "Ledger",
    "VolumeBatch",
    "VolumeInput",
    "VolumePipeline",
    "VolumeResult",
    "find_volumes",
    "write_report",
    "write_tables",
]
