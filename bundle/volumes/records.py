"""What is known of each volume of a batch: a JSON record beside the results, and the tables made of all records."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.files import write_atomically
from bundle.volumes.inputs import VolumeInput

__all__ = [
    "LESION_COLUMNS",
    "VOLUME_COLUMNS",
    "file_hash",
    "input_hash",
    "is_finished",
    "read_record",
    "record_path",
    "write_tables",
]

VOLUME_COLUMNS = (
    "name",
    "file",
    "status",
    "volume_ml",
    "lesions",
    "uncertainty",
    "similarity",
    "warnings",
    "error",
    "seconds",
    "peak_memory_mb",
    "weights",
    "versions",
)
"""Of volumes.tsv. Volume and uncertainty are the mask's, similarity is the head's to the MNI template."""

LESION_COLUMNS = (
    "name",
    "number",
    "volume_ml",
    "x_mm",
    "y_mm",
    "z_mm",
    "side",
    "region",
    "mean_probability",
    "mean_uncertainty",
)
"""Of lesions.tsv; see :class:`bundle.volumes.VolumeLesion`."""


def file_hash(file: Path) -> str:
    """The SHA-256 of a file's bytes.

    Raises:
        OSError: when it cannot be read, or is no regular file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file.")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def input_hash(volume: VolumeInput) -> str:
    """The SHA-256 of what a volume is made from: its file, or the instances of its DICOM series.

    Raises:
        OSError: when it cannot be read.
    """
    if not volume.instances:
        return file_hash(volume.file)
    return hashlib.sha256(" ".join(map(file_hash, volume.instances)).encode()).hexdigest()


def record_path(output: Path, volume: VolumeInput) -> Path:
    """Where a volume's record is."""
    return output / "records" / f"{volume.name}.json"


def read_record(output: Path, volume: VolumeInput) -> dict[str, Any] | None:
    """A volume's record, or None where there is none that can be read."""
    try:
        record = json.loads(record_path(output, volume).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("name") == volume.name else None


def is_finished(record: Mapping[str, Any] | None, key: Mapping[str, str], output: Path) -> bool:
    """Whether a record is of a success with this input, these weights and settings, and its files are there."""
    return (
        record is not None
        and record.get("status") == "done"
        and record.get("key") == key
        and all((output / file).is_file() for file in record.get("files", ()))
    )


def _cell(value: Any) -> str:
    """Numbers to four digits behind the point; names that are no Unicode with their bytes escaped."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _write_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    write_atomically(text.getvalue(), path)


def write_tables(records: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Writes OUTPUT/volumes.tsv with a row for each volume, and lesions.tsv with one for each lesion.

    Args:
        records: in the order of the rows.
        output: the folder of the results.
    """
    _write_table(
        [{**record, "lesions": len(record.get("lesions", ()))} for record in records],
        VOLUME_COLUMNS,
        output / "volumes.tsv",
    )
    lesions = [{"name": record["name"], **lesion} for record in records for lesion in record.get("lesions", ())]
    _write_table(lesions, LESION_COLUMNS, output / "lesions.tsv")
