"""The tables of a batch: volumes.tsv and lesions.tsv, made from the records of its volumes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.files import write_atomically

__all__ = ["LESION_COLUMNS", "VOLUME_COLUMNS", "write_tables"]

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


def _cell(value: Any) -> str:
    """Return a number with four decimals; bytes of a name that are not Unicode are escaped."""
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
    """Write OUTPUT/volumes.tsv with a row for each volume, and lesions.tsv with one for each lesion.

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
