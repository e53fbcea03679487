"""The records of a batch, a JSON file in OUTPUT/records for each volume, by which a rerun does only what is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from bundle.errors import InputError
from bundle.files import read_json, write_json
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["Ledger"]

_log = logging.getLogger(__name__)

_NUMBER = (int, float)
_OF_ALL: dict[str, Any] = {"file": str, "error": str, "weights": str, "versions": str}
_OF_DONE = _OF_ALL | dict.fromkeys(("volume_ml", "uncertainty", "seconds", "peak_memory_mb"), _NUMBER)
_OF_LESION = {name: _NUMBER if kind in _NUMBER else kind for name, kind in get_type_hints(VolumeLesion).items()}


def _has(found: Any, kinds: Mapping[str, Any]) -> bool:
    return isinstance(found, Mapping) and all(isinstance(found.get(name), kind) for name, kind in kinds.items())


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Return whether a record has all that tables and report show; it may have been damaged since it was written."""
    if record.get("status") == "failed":
        return _has(record, _OF_ALL)
    texts = [record.get(name) for name in ("files", "warnings")]
    return (
        record.get("status") == "done"
        and _has(record, {**_OF_DONE, "lesions": list, "timing": dict, "similarity": (*_NUMBER, type(None))})
        and all(_has(lesion, _OF_LESION) for lesion in record["lesions"])
        and all(isinstance(second, _NUMBER) for second in record["timing"].values())
        and all(isinstance(part, list) and all(isinstance(text, str) for text in part) for part in texts)
    )


def _input_of(record: Mapping[str, Any]) -> Any:
    key = record.get("key")
    return key.get("input") if isinstance(key, Mapping) else None


@dataclass
class Ledger:
    """The records of a batch, one for each volume.

    A volume is finished if its record is of a success with the same input, weights and settings, and its files exist.

    Args:
        output: the folder of the results.
        weights: the hash of the network's weights.
        settings: a text of all settings, or its hash.
        versions: those of the software.
    """

    output: Path
    weights: str
    settings: str
    versions: str
    _records: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def key(self, volume: VolumeInput) -> dict[str, str]:
        """Return all that a volume's results depend on."""
        try:
            content = volume.content_hash()
        except OSError:  # reported by the check of the header
            content = ""
        return {"input": content, "weights": self.weights, "settings": self.settings}

    def path(self, volume: VolumeInput) -> Path:
        """Return where a volume's record is."""
        return self.output / "records" / f"{volume.name}.json"

    def records(self, volumes: Sequence[VolumeInput]) -> list[dict[str, Any]]:
        """Return the existing records, in the order of the volumes."""
        found = (self._records.get(volume.name) or self._read(volume) for volume in volumes)
        return [record for record in found if record]

    def check_names(self, volumes: Sequence[VolumeInput]) -> None:
        """Check that no volume would replace results of another one, which has the same name.

        Raises:
            InputError: if one would; a volume that only moved, or only changed, is the same.
        """
        for volume in volumes:
            record = self._read(volume)
            moved = record.get("status") == "done" and record.get("origin", volume.origin) != volume.origin
            if moved and _input_of(record) != self.key(volume)["input"]:
                raise InputError(
                    f"{self.output} holds the results of {record['file']} as {volume.name}, and {volume.file} would "
                    "replace them: choose another OUTPUT."
                )

    def unfinished(
        self, volumes: Sequence[VolumeInput], skip: Callable[[], object]
    ) -> Iterator[tuple[VolumeInput, dict[str, str]]]:
        """Yield the volumes that are not finished, each with its key.

        Args:
            volumes: those of the batch.
            skip: is called for each finished volume.
        """
        for volume in volumes:
            key, record = self.key(volume), self._read(volume)
            done = record.get("status") == "done" and record.get("key") == key
            if done and all((self.output / file).is_file() for file in record.get("files", ())):
                skip()
            else:
                yield volume, key

    def done(self, volume: VolumeInput, key: Mapping[str, str], found: Mapping[str, Any]) -> None:
        """Record what was found in a volume."""
        self._write(volume, key, {"status": "done", "error": "", **found})

    def fail(self, volume: VolumeInput, key: Mapping[str, str], reason: str) -> None:
        """Record in a sentence why a volume could not be segmented, and name an earlier mask, which is kept."""
        earlier = volume.result_path(self.output, "desc-lesion_mask")
        kept = f" An earlier mask stays: {earlier}." if earlier.exists() else ""
        self._write(volume, key, {"status": "failed", "error": reason + kept})

    def add(self, record: dict[str, Any]) -> None:
        """Add a record that has been written, here or on another machine, and log it."""
        self._records[record["name"]] = record
        if record["status"] == "failed":
            _log.error("%s", record["error"])
        else:
            _log.info("%s: %.1f mL in %d lesions", record["file"], record["volume_ml"], len(record["lesions"]))

    def _read(self, volume: VolumeInput) -> dict[str, Any]:
        """Return the record on disk; an empty one if there is none that can be read."""
        try:
            record = read_json(self.path(volume))
        except InputError:
            return {}
        return record if isinstance(record, dict) and record.get("name") == volume.name and _is_whole(record) else {}

    def _write(self, volume: VolumeInput, key: Mapping[str, str], found: Mapping[str, Any]) -> None:
        """Write a volume's record; if that is impossible, the volume has failed."""
        made_by = {"key": key, "weights": self.weights[:12], "versions": self.versions}
        record = {"name": volume.name, "file": str(volume.file), "origin": volume.origin, **found, **made_by}
        try:
            write_json(record, self.path(volume))
        except OSError as error:
            reason = f"The record of {volume.file} could not be written: {error.strerror or error}."
            record = {**record, "status": "failed", "error": f"{record['error']} {reason}".lstrip()}
        self.add(record)
