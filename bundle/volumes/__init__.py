"""From volumes to lesion masks, tables and pictures: what every program that segments shares."""

from bundle.volumes.batch import VolumeBatch
from bundle.volumes.inputs import VolumeInput, find_volumes
from bundle.volumes.ledger import Ledger
from bundle.volumes.lesion_table import RegionAtlas, VolumeLesion, entropy_bits, find_lesions
from bundle.volumes.picture import (
    Agreement,
    agreement,
    save_lesion_overview,
    save_lesion_slices,
    save_montage,
    save_volume_distribution,
)
from bundle.volumes.pipeline import PreparedVolume, VolumePipeline, VolumeResult
from bundle.volumes.report import write_report
from bundle.volumes.tables import write_tables
from bundle.volumes.view import save_view

__all__ = [
    "Agreement",
    "Ledger",
    "PreparedVolume",
    "RegionAtlas",
    "VolumeBatch",
    "VolumeInput",
    "VolumeLesion",
    "VolumePipeline",
    "VolumeResult",
    "agreement",
    "entropy_bits",
    "find_lesions",
    "find_volumes",
    "save_lesion_overview",
    "save_lesion_slices",
    "save_montage",
    "save_view",
    "save_volume_distribution",
    "write_report",
    "write_tables",
]
