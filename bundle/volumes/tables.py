"""The tables of a batch, volumes.tsv and lesions.tsv, made from the records of its volumes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.files import write_atomically
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["write_tables"]

# Volume, uncertainty and predicted Dice belong to the mask, similarity to the head and the MNI template.
_VOLUME_COLUMNS = (
    "name",
    "file",
    "status",
    "volume_ml",
    "lesions",
    "uncertainty",
    "predicted_dice",
    "similarity",
    "warnings",
    "error",
    "seconds",
    "peak_memory_mb",
    "weights",
    "versions",
)


def _cell(value: Any) -> str:
    """Return the text of a cell: floats with four decimals."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _write_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    write_atomically(text.getvalue(), path)


def write_tables(records: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Write OUTPUT/volumes.tsv with a row for each volume, and lesions.tsv with one for each lesion.

    Args:
        records: in the order of the rows.
        output: the folder of the results.
    """
    volumes = [{**record, "lesions": len(record["lesions"]) if "lesions" in record else None} for record in records]
    lesions = [{"name": record["name"], **lesion} for record in records for lesion in record.get("lesions", ())]
    _write_table(volumes, _VOLUME_COLUMNS, output / "volumes.tsv")
    _write_table(lesions, ("name", *VolumeLesion._fields), output / "lesions.tsv")
