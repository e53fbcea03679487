"""The files of a whole batch in the folder of its results: description, log, tables and report; and the summary."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bundle.errors import InputError
from bundle.files import remove_unfinished, write_json
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.report import write_report
from bundle.volumes.tables import write_tables

__all__ = ["begin_output", "describe_timing", "report"]

_TABLES_AND_REPORT = ("volumes.tsv", "lesions.tsv", "report.html")
_DESCRIPTION = {
    "Name": "Stroke lesions",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "stroke lesion bundle", "Description": "Not for clinical use."}],
}


def begin_output(output: Path, alone: bool) -> None:
    """Make the folder of the results and the log in it.

    Args:
        output: the folder.
        alone: whether no other program writes there.

    Raises:
        InputError: if nothing can be written there.
    """
    try:
        write_json(_DESCRIPTION, output / "dataset_description.json")
        for name in _TABLES_AND_REPORT if alone else ():
            remove_unfinished(output / name)
        log = logging.FileHandler(output / "segment.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("bundle")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def report(records: Sequence[dict[str, Any]], asked: Sequence[VolumeInput], output: Path) -> bool:
    """Write the tables and the report of a batch, and print a summary.

    Args:
        records: those of all volumes.
        asked: the volumes that this program was to segment.
        output: the folder of the results.

    Returns:
        whether all volumes that were asked for are segmented, and the tables written.
    """
    try:
        write_tables(records, output)
        write_report(records, output)
    except OSError as error:
        print(f"Error: the tables in {output} could not be written: {error.strerror or error}.", file=sys.stderr)
        return False
    names = {volume.name for volume in asked}
    mine = [record for record in records if record["name"] in names]
    failed = [record for record in mine if record["status"] == "failed"]
    checked = [record for record in mine if record["status"] == "done" and record["warnings"]]
    for record in failed:
        print(f"Failed: {record['error']}", file=sys.stderr)
    print(
        f"{len(mine) - len(failed)} of {len(asked)} volumes are segmented, {len(checked)} of these should be checked."
        f"\nReport: {output / 'report.html'}\nTables: {output / 'volumes.tsv'}, {output / 'lesions.tsv'}"
        f"\nLog:    {output / 'segment.log'}\nNot for clinical use."
    )
    return not failed and len(mine) == len(asked)


def describe_timing(
    records: Sequence[Mapping[str, Any]], import_seconds: float, ready_seconds: float, seconds: float
) -> str:
    """Return lines on how long the parts of a run took.

    Args:
        records: those of all volumes.
        import_seconds: for the imports.
        ready_seconds: until the network was ready.
        seconds: for the volumes.
    """
    done = [record["timing"] for record in records if record["status"] == "done"]
    lines = [
        f"Seconds: {import_seconds:.1f} for imports, {ready_seconds:.1f} for the network, {seconds:.1f} for volumes."
    ]
    if done:
        medians = ", ".join(f"{step} {median(timing[step] for timing in done):.2f}" for step in done[0])
        lines.append(f"Seconds per volume, medians of {len(done)}: {medians}.")
    return "\n".join(lines)
