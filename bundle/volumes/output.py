"""The files of a whole batch in the folder of its results: description, log, tables and report; and the summary."""

from __future__ import annotations

import fcntl
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import IO, Any

from bundle.errors import InputError
from bundle.files import remove_unfinished, write_atomically, write_json
from bundle.volumes.inputs import VolumeInput, parse_shard
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
_locks: dict[Path, IO[str]] = {}  # of this program, open until it ends
# What BIDS does not know: tables, report, records, and results of files without BIDS names.
_NOT_BIDS = "/*\n!/dataset_description.json\n!/sub-*\n"


def begin_output(output: Path, shard: str | None = None) -> None:
    """Make the folder of the results and the log in it, and keep other programs from it until this one ends.

    Shards of one number share a folder, but each of them is done by one program at a time.

    Args:
        output: the folder.
        shard: which part of the volumes this program does; None for all of them.

    Raises:
        InputError: if nothing can be written there, another program is writing the same results, or the shard is not
            of the form i/n.
    """
    alone = shard is None
    try:
        output.mkdir(parents=True, exist_ok=True)
        _lock(output, "all", shared=not alone)
        if shard is not None:
            number, shards = parse_shard(shard)
            _lock(output, f"{number}-{shards}", shared=False)
            _refuse_other_shards(output, shards)
        write_json(_DESCRIPTION, output / "dataset_description.json")
        write_atomically(_NOT_BIDS, output / ".bidsignore")
        for name in _TABLES_AND_REPORT if alone else ():
            remove_unfinished(output / name)
        log = logging.FileHandler(output / "segment.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    log.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk: the results fail and tell
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("bundle")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _lock(output: Path, part: str, shared: bool) -> None:
    """Lock a part of the results until this program ends, however it ends.

    Raises:
        InputError: if another program has it.
        OSError: if nothing can be written there.
    """
    if (file := output.resolve() / f".lock-{part}") in _locks:
        return
    stream = file.open("w")
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{output} is being written to by another run: wait until it ends, or give each run a shard of its own."
        ) from error
    except OSError:  # a file system without locks
        stream.close()
    else:
        _locks[file] = stream


def _refuse_other_shards(output: Path, shards: int) -> None:
    """Refuse to run beside shards of another number: they have volumes in common with these.

    Raises:
        InputError: if another program holds the lock of such a shard.
        OSError: if the lock cannot be opened.
    """
    for file in output.resolve().glob(".lock-*-*"):
        other = file.name.rpartition("-")[2]
        if other == str(shards) or file in _locks:
            continue
        with file.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{output} is being written to by a run of {other} shards, which share volumes with these "
                    f"{shards}: wait until it ends, or give each run a shard of {other}."
                ) from error
            except OSError:  # a file system without locks
                return


def report(records: Sequence[dict[str, Any]], asked: Sequence[VolumeInput], output: Path) -> bool:
    """Write the tables and the report of a batch, and print a summary.

    Args:
        records: those of all volumes.
        asked: the volumes that this program was to segment.
        output: the folder of the results.

    Returns:
        whether all volumes that were asked for are segmented, and the tables written.
    """
    written = True
    try:
        write_tables(records, output)
        write_report(records, output)
    except OSError as error:
        print(f"Error: the tables in {output} could not be written: {error.strerror or error}.", file=sys.stderr)
        written = False
    names = {volume.name for volume in asked}
    mine = [record for record in records if record["name"] in names]
    failed = [record for record in mine if record["status"] == "failed"]
    checked = [record for record in mine if record["status"] == "done" and record["warnings"]]
    others = sum(1 for _ in (output / "records").rglob("*.json")) - len(records)
    if others > 0:
        print(f"{output} also has results of earlier runs (volumes: {others}), which these tables leave out.")
    for record in failed:
        print(f"Failed: {record['error']}", file=sys.stderr)
    print(
        f"{len(mine) - len(failed)} of {len(asked)} volumes are segmented, {len(checked)} of these should be checked."
        f"\nReport: {output / 'report.html'}\nTables: {output / 'volumes.tsv'}, {output / 'lesions.tsv'}"
        f"\nLog:    {output / 'segment.log'}\nNot for clinical use."
    )
    return written and not failed and len(mine) == len(asked)


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
