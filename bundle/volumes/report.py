"""The report of a batch, a page that opens in any browser without the internet: what was found, and what to check."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bundle.files import write_atomically
from bundle.templates import render

__all__ = ["quality_in_words", "write_report"]

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_GOOD_DICE, _FAIR_DICE = 0.7, 0.5
_EDGES_ML = (0, 1, 3, 10, 30, 100)

# The parts of a warning that differ from volume to volume: numbers, and text in brackets.
_DETAILS = re.compile(r" ?\([^)]*\)|\d+(\.\d+)?")


def write_report(records: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Write OUTPUT/report.html: an overview, and a table with a picture of each volume that can be filtered and sorted.

    Args:
        records: those of :class:`bundle.volumes.VolumeBatch`.
        output: the folder of the results.
    """
    rows = [_row(record, output) for record in records]
    page = render(
        _TEMPLATE,
        rows=rows,
        counts=Counter(row["status"] for row in rows),
        reasons=Counter(_kind(note) for row in rows if row["status"] == "check" for note in row["notes"]).most_common(),
        bars=_bars([row for row in rows if row["status"] != "failed"]),
        versions=records[0]["versions"] if records else "",
    )
    write_atomically(page, output / "report.html")


def quality_in_words(record: Mapping[str, Any]) -> str:
    """Return how good the mask of a segmented volume is likely to be, by its predicted Dice."""
    if not record["volume_ml"]:
        return "small lesions may be missed"
    if any("not registered" in warning for warning in record["warnings"]):
        return "doubtful"
    if (dice := record.get("predicted_dice")) is None:
        return "not known"
    return "good" if dice >= _GOOD_DICE else "fair" if dice >= _FAIR_DICE else "doubtful"


def _row(record: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Return what the page shows of a volume."""
    view, picture = f"views/{record['name']}.html", f"figures/{record['name']}.png"
    if record["status"] == "failed":
        return {**record, "notes": [record["error"]], "view": None, "picture": None}
    return {
        **record,
        "status": "check" if record["warnings"] else "done",
        "notes": record["warnings"],
        "quality": quality_in_words(record),
        "view": view if view in record.get("files", ()) else None,
        "picture": picture if (output / picture).exists() else None,
    }


def _kind(warning: str) -> str:
    """Return a warning without the parts that differ from volume to volume."""
    return _DETAILS.sub(lambda detail: "" if detail[0].endswith(")") else "...", warning)


def _bars(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the bars of the plot: volumes without a lesion, and the others by the volume of their lesions in mL."""
    labels = ["none", "under 1", *(f"{low} to {high}" for low, high in pairwise(_EDGES_ML[1:])), "100 or more"]
    counts = [Counter[str]() for _ in labels]
    for row in rows:
        counts[sum(row["volume_ml"] >= edge for edge in _EDGES_ML) if row["volume_ml"] else 0][row["status"]] += 1
    most = max(1, *(count.total() for count in counts))
    return [
        {"label": label, "count": count.total(), "done": count["done"] / most, "check": count["check"] / most}
        for label, count in zip(labels, counts, strict=True)
    ]
