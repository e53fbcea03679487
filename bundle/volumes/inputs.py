"""The volumes of a batch, where they come from and what their results are called."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bundle.bids import parse_name
from bundle.errors import InputError
from bundle.files import IMAGE_SUFFIXES, images_below, stem
from bundle.volumes.lesion_table import VolumeLesion

__all__ = ["Algorithm", "VolumeInput", "file_hash", "find_volumes", "take_shard"]

_LISTS = (".txt", ".csv", ".tsv")
_COLUMNS = ("image", "file", "path", "filename")
_LONGEST_NAME = 180
_WILD = re.compile(r"[*?\[]")


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: if it cannot be read, or is not a regular file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file.")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Algorithm(NamedTuple):
    """The description of what makes the masks, for results that name it.

    Args:
        name: of the network.
        version: of this software.
        weights: SHA-256 of the network's weights.
        threshold: probability from which a voxel is lesion.
    """

    name: str
    version: str
    weights: str
    threshold: float

    @property
    def parameters(self) -> dict[str, str]:
        """The weights and the threshold, under the names by which results give them."""
        return {"weights SHA-256": self.weights, "threshold": f"{self.threshold:g}"}


@dataclass(frozen=True)
class VolumeInput:
    """A volume of a batch: an image file. Other sources of volumes are subclasses.

    Args:
        file: the image; it need not exist: a missing file that a list names is a failure of its volume alone.
        name: of its results, without suffix: the folders below the input's and the stem; no other volume of the batch
            has it. A BIDS name has lost its ``_T1w``; one of more than 180 bytes is cut, and ends in 8 digits of its
            hash.
    """

    file: Path
    name: str

    def result_path(self, output: Path, kind: str, suffix: str = ".nii.gz") -> Path:
        """Return where a result is, by a BIDS derivative's name.

        Args:
            output: the folder of the results.
            kind: such as ``"desc-lesion_mask"``, ``"desc-lesion_probseg"`` or ``"desc-entropy_probseg"``.
            suffix: with its dot.
        """
        return output / f"{self.name}_space-orig_label-L_{kind}{suffix}"

    def content_hash(self) -> str:
        """Return the SHA-256 of what the volume is made from.

        Raises:
            OSError: if it cannot be read.
        """
        return file_hash(self.file)

    def prepare_source(self) -> None:
        """Make ``file``, where the source is not an image already.

        Raises:
            InputError: if it cannot be made.
        """

    def extra_paths(self, output: Path) -> list[Path]:
        """Return all results there can be in the form of the source, beside those of every volume."""
        return []

    def write_extra(self, output: Path, lesions: Sequence[VolumeLesion], algorithm: Algorithm | None) -> list[Path]:
        """Write the results in the form of the source, after the mask, and return their paths.

        Args:
            output: the folder of the results.
            lesions: of the mask.
            algorithm: what made the mask.

        Raises:
            InputError: if they cannot be made.
            OSError: if a file cannot be written.
        """
        return []


def _expects(source: str) -> str:
    return (
        f"{source} does not exist: a T1w image ({', '.join(IMAGE_SUFFIXES)}), a folder of them, a BIDS dataset, "
        f"a pattern such as 'scans/*.nii.gz', or a list ({', '.join(_LISTS)}) is expected."
    )


def _in_bids(folder: Path, outside: Path) -> list[Path]:
    """The T1w images of the subjects; derivatives and source data are left out."""
    subjects = [path for path in sorted(folder.glob("sub-*")) if path.is_dir()]
    files = [file for subject in subjects for file in images_below(subject, outside)]
    return [file for file in files if parse_name(file).is_t1w]


def _in_list(file: Path) -> list[Path]:
    """A path a line in a text file; in a table, those of the column that is named for it. From the list's folder on."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not a text file of paths: {error}.") from error
    if file.suffix.lower() == ".txt":
        entries = [line.strip() for line in text.splitlines()]
    else:
        table = csv.DictReader(text.splitlines(), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        column = next((name for name in table.fieldnames or () if name.strip().lower() in _COLUMNS), None)
        if column is None:
            raise InputError(f"{file} has no column of paths: one called {', '.join(_COLUMNS)} is expected.")
        entries = [(row[column] or "").strip() for row in table]
    return [file.parent / entry for entry in entries if entry]


def _shared_folder(files: list[Path], base: Path) -> Path:
    """The base, or where files lie outside of it, the folder that holds all of them."""
    if all(file.is_relative_to(base) for file in files):
        return base
    return Path(os.path.commonpath([file.parent for file in files]))


def _short(name: str) -> str:
    """A name that leaves room for what results are called; file systems take 255 bytes."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: _LONGEST_NAME - 9].decode(errors="ignore") + "-" + digest


def _names(files: list[Path], base: Path) -> Iterator[str]:
    """Of the results, each once: the folders below the base, and the stem, or the whole name where that is taken."""
    taken: set[str] = set()
    for file in files:
        name = stem(file)
        name = name.removesuffix("_T1w") if parse_name(name).is_t1w else name
        for candidate in (name, file.name, *(f"{file.name}-{number}" for number in range(2, len(files) + 2))):
            path = (file.relative_to(base).parent / _short(candidate)).as_posix()
            # Upper and lower case are one on some file systems.
            if path.casefold() not in taken:
                taken.add(path.casefold())
                yield path
                break


def _matching(pattern: str) -> tuple[list[Path], Path]:
    """The files that fit, sorted, and the pattern's folder before its first wildcard."""
    parts = Path(pattern).parts
    wild = next(number for number, part in enumerate(parts) if _WILD.search(part))
    base = Path(*parts[:wild])
    return sorted(file for file in base.glob("/".join(parts[wild:])) if file.is_file()), base


def find_volumes(source: str | Path, output: str | Path, may_be_none: bool = False) -> list[VolumeInput]:
    """The volumes of a batch, in the order of their paths, or of the list.

    Args:
        source: an image; a folder, searched with its subfolders; a BIDS dataset (a folder with
            ``dataset_description.json``), of which the subjects' T1w images count; a pattern; or a list of paths, as
            text or as a table with a column image, file, path or filename.
        output: the folder of the results, which is not searched.
        may_be_none: for a source that holds DICOM, in which images are welcome and not expected.

    Raises:
        InputError: when the source does not exist, holds no image, or is a table without a column of paths.
    """
    path, outside = Path(source), Path(output).resolve()
    if path.is_dir():
        base, bids = path, (path / "dataset_description.json").exists()
        files = _in_bids(path, outside) if bids else list(images_below(path, outside))
        expected = "T1w images named sub-<label>..._T1w" if bids else f"files ending in {', '.join(IMAGE_SUFFIXES)}"
    elif path.suffix.lower() in _LISTS and path.is_file():
        files, base, expected = _in_list(path), path.parent, "a path a line"
    elif path.is_file() or path.is_symlink():
        files, base, expected = [path], path.parent, "an image"
    elif _WILD.search(str(source)):
        files, base = _matching(str(source))
        expected = "files that fit the pattern"
    else:
        raise InputError(_expects(str(source)))
    if not files and not may_be_none:
        raise InputError(f"{source} holds no image; expected: {expected}.")
    # A link's own name counts, not that of what it leads to: absolute, not resolved.
    files = list(dict.fromkeys(Path(os.path.normpath(file.absolute())) for file in files))
    base = _shared_folder(files, Path(os.path.normpath(base.absolute())))
    return [VolumeInput(file, name) for file, name in zip(files, _names(files, base), strict=True)]


def take_shard(volumes: Sequence[VolumeInput], shard: str | None) -> list[VolumeInput]:
    """Return every n-th volume from the i-th on, for a shard of ``"i/n"``; all of them without a shard.

    Raises:
        InputError: if a shard is not of that form.
    """
    if shard is None:
        return list(volumes)
    try:
        number, count = map(int, shard.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise InputError(f"--shard {shard} is none: i/n is expected, 1/4 to 4/4 for instance.")
    return list(volumes[number - 1 :: count])
