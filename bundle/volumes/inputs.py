"""The volumes of a batch: their sources and the names of their results."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import nibabel as nib

from bundle.bids import parse_name
from bundle.errors import InputError
from bundle.files import IMAGE_SUFFIXES, images_below, refuse_no_image, stem
from bundle.volumes.lesion_table import VolumeLesion
from bundle.volumes.sources import LISTS, is_pattern, matching_files, paths_in_list

__all__ = ["Algorithm", "VolumeInput", "file_hash", "find_volumes", "parse_shard", "result_name", "take_shard"]

_LONGEST_NAME = 180
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python holds such bytes of a name


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
    """A description of what makes the masks, for results that name it.

    Args:
        name: that of the network.
        version: that of this software.
        weights: SHA-256 of the weights.
        threshold: probability from which a voxel is lesion.
    """

    name: str
    version: str
    weights: str
    threshold: float

    @property
    def parameters(self) -> dict[str, str]:
        """The weights and the threshold, by their names in the results."""
        return {"weights SHA-256": self.weights, "threshold": f"{self.threshold:g}"}


@dataclass(frozen=True)
class VolumeInput:
    """A volume of a batch: an image file. Other sources of volumes are subclasses.

    Args:
        file: the image; it need not exist: a missing file in a list is a failure of its volume alone.
        name: of its results, unique in the batch, without suffix: the folders below the source's, and the stem. A BIDS
            name is without its ``_T1w``; a name of more than 180 bytes is cut, and ends in 8 digits of its hash; bytes
            that are not UTF-8 are ``%E9``.
    """

    file: Path
    name: str

    @property
    def origin(self) -> str:
        """Where the volume comes from, which tells it from another one of the same name."""
        return str(self.file.absolute())

    def result_path(self, output: Path, kind: str, suffix: str = ".nii.gz") -> Path:
        """Return the path of a result, with the name of a BIDS derivative.

        Args:
            output: the folder of the results.
            kind: such as ``"desc-lesion_mask"``, ``"desc-lesion_probseg"`` or ``"desc-entropy_probseg"``.
            suffix: with its dot.
        """
        return output / f"{self.name}_space-orig_label-L_{kind}{suffix}"

    def content_hash(self) -> str:
        """Return the SHA-256 of the file or files that the volume is made from.

        Raises:
            OSError: if it cannot be read.
        """
        return file_hash(self.file)

    def prepare_source(self) -> None:
        """Make ``file``, if the source is not an image already.

        Raises:
            InputError: if it cannot be made.
        """

    def extra_paths(self, output: Path) -> list[Path]:
        """Return the paths of all results in the form of the source, besides those of every volume."""
        return []

    def write_extra(
        self,
        output: Path,
        mask: nib.Nifti1Image,
        lesions: Sequence[VolumeLesion],
        predicted_dice: float | None,
        algorithm: Algorithm | None,
    ) -> list[Path]:
        """Write the results in the form of the source, before all others, and return their paths.

        Args:
            output: the folder of the results.
            mask: on the grid of ``file``.
            lesions: those of the mask.
            predicted_dice: of the mask, or None where it is not known.
            algorithm: what made the mask.

        Raises:
            InputError: if they cannot be made.
            OSError: if a file cannot be written.
        """
        return []


def _in_bids(folder: Path, outside: Path) -> list[Path]:
    """Find the T1w images of the subjects, without derivatives and source data."""
    found = (file for subject in sorted(folder.glob("sub-*")) for file in images_below(subject, outside))
    return [file for file in found if parse_name(file).is_t1w or not file.name.lower().endswith(IMAGE_SUFFIXES)]


def result_name(path: Path) -> str:
    """Return a relative path as the name of results, in UTF-8: other bytes of its parts become ``%E9``, as in URLs."""
    return "/".join(_short(part) if _NOT_UTF8.search(part) else part for part in path.parts)


def _short(name: str) -> str:
    """Return a name in UTF-8 that leaves room for the suffixes of results; file systems allow 255 bytes."""
    name = _NOT_UTF8.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: _LONGEST_NAME - 9].decode(errors="ignore") + "-" + digest


def _names(files: list[Path], base: Path) -> Iterator[str]:
    """Yield unique names of results: the folders below the base, and the stem, or the whole name if that is taken."""
    taken: set[str] = set()
    for file in files:
        name = stem(file)
        name = name.removesuffix("_T1w") if parse_name(name).is_t1w else name
        candidates = chain((name, file.name), (f"{file.name}-{number}" for number in count(2)))
        paths = (result_name(file.relative_to(base).parent / _short(candidate)) for candidate in candidates)
        # Some file systems do not distinguish upper and lower case.
        path = next(path for path in paths if path.casefold() not in taken)
        taken.add(path.casefold())
        yield path


def find_volumes(source: str | Path, output: str | Path, may_be_none: bool = False) -> list[VolumeInput]:
    """Find the volumes of a batch, in the order of their paths, or of the list.

    Args:
        source: an image; a folder, searched with its subfolders; a BIDS dataset (a folder with
            ``dataset_description.json``), in which only the T1w images of the subjects are found; a pattern; or a list
            of paths, as text or as a table with a column image, file, path or filename.
        output: the folder of the results, which is not searched.
        may_be_none: whether a source without an image is allowed, as one with DICOM is.

    Raises:
        InputError: if the source does not exist, holds no image, or is a table without a column of paths.
    """
    path, outside = Path(source), Path(output).resolve()
    if path.is_dir():
        base, bids = path, (path / "dataset_description.json").exists()
        files = _in_bids(path, outside) if bids else images_below(path, outside)
        expected = "T1w images named sub-<label>..._T1w" if bids else f"files ending in {', '.join(IMAGE_SUFFIXES)}"
    elif path.suffix.lower() in LISTS and path.is_file():
        files, base, expected = paths_in_list(path), path.parent, "one path per line"
    elif path.is_file() or path.is_symlink():
        files, base, expected = [path], path.parent, "an image"
    elif is_pattern(source):
        (files, base), expected = matching_files(str(source), outside), "files that match the pattern"
    else:
        raise InputError(
            f"{source} does not exist: a T1w image ({', '.join(IMAGE_SUFFIXES)}), a folder of them, a BIDS dataset, "
            f"a pattern such as 'scans/*.nii.gz', or a list ({', '.join(LISTS)}) is expected."
        )
    if not files and not may_be_none:
        raise refuse_no_image(source, outside, expected)
    # Absolute, not resolved: the name of a link counts, not that of its target.
    files = list(dict.fromkeys(Path(os.path.normpath(file.absolute())) for file in files))
    base = Path(os.path.normpath(base.absolute()))
    if not all(file.is_relative_to(base) for file in files):
        base = Path(os.path.commonpath([file.parent for file in files]))
    return [VolumeInput(file, name) for file, name in zip(files, _names(files, base), strict=True)]


def parse_shard(shard: str) -> tuple[int, int]:
    """Return i and n of a shard of ``"i/n"``.

    Raises:
        InputError: if it is not of that form.
    """
    try:
        number, shards = map(int, shard.split("/"))
    except ValueError:
        number, shards = 0, 0
    if not 1 <= number <= shards:
        raise InputError(f"--shard {shard} is not a shard: i/n is expected, such as 1/4 to 4/4.")
    return number, shards


def take_shard(volumes: Sequence[VolumeInput], shard: str | None) -> list[VolumeInput]:
    """Return every n-th volume from the i-th on, for a shard of ``"i/n"``; all of them without a shard.

    Raises:
        InputError: if a shard is not of that form.
    """
    number, shards = (1, 1) if shard is None else parse_shard(shard)
    return list(volumes[number - 1 :: shards])
