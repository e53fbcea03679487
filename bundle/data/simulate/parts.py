"""Which heads and masks are for training and validation, and which are kept for the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bundle.errors import InputError, explain
from bundle.files import read_json

__all__ = ["Part", "Split", "heads_of", "lookalike_heads", "masks_of"]

Part = Literal["training", "validation", "test", "test_scans"]
"""``test_scans`` has the masks of the test and scans that came later; the heads of ``test`` stay what they were."""

_UNUSED = "unused"


@dataclass(frozen=True)
class Split:
    """Which heads and masks each part has, by shell patterns of file names.

    Args:
        heads: patterns of each part's heads, and of ``unused`` ones.
        lookalike_heads: patterns of heads with changes that are not stroke, as of multiple sclerosis: no lesion is
            simulated in them.
        test_masks: share of all masks that are the test's.
        validation_masks: share of the other masks that are for validation.
    """

    heads: Mapping[str, Sequence[str]]
    lookalike_heads: Sequence[str] = ()
    test_masks: float = 0.2
    validation_masks: float = 0.2
    file: str = field(default="the split", compare=False)

    @classmethod
    def read(cls, file: str | Path) -> Split:
        """Return the split that a JSON file holds, with this class's arguments as keys.

        Raises:
            InputError: when the file cannot be read, or has other keys or parts.
        """
        try:
            split = cls(**read_json(file), file=str(file))
        except TypeError as error:
            raise InputError(explain(str(file), error)) from error
        if unknown := set(split.heads) - {*get_args(Part), _UNUSED}:
            raise InputError(f"{file} has heads of {sorted(unknown)[0]}: {_parts()} or {_UNUSED} is expected.")
        return split

    def part_of(self, head: str) -> str:
        """Return the part, or ``unused``, of the one that a head's file name fits.

        Raises:
            InputError: when it fits the patterns of none, or of several.
        """
        name = Path(head).name
        fitting = [part for part, patterns in self.heads.items() if any(fnmatch(name, one) for one in patterns)]
        if len(fitting) != 1:
            found = f"fits the patterns of {' and '.join(fitting)}" if fitting else "fits no pattern"
            raise InputError(f"{head} {found} in {self.file}: a head must be in one part.")
        return fitting[0]


def _parts() -> str:
    *first, last = get_args(Part)
    return f"{', '.join(first)} or {last}"


def _check_part(part: str) -> None:
    if part not in get_args(Part):
        raise InputError(f"part must be {_parts()}, got {part}.")


def heads_of(
    part: Part, files: Sequence[str], test_heads: Sequence[str] = (), split: str | Path | None = None
) -> list[str]:
    """Return the heads of one part.

    Args:
        part: which.
        files: all heads.
        test_heads: shell patterns of the file names of the test heads, all others being for training; one pattern for
            all files of a person keeps them on one side.
        split: a file as :meth:`Split.read` takes it, instead of ``test_heads``.

    Raises:
        InputError: when a pattern of ``test_heads`` fits no head, a head is in no part of the split, or in several, no
            head is left, both ways to split are given, or there is no such part.
    """
    _check_part(part)
    if split is not None:
        if test_heads:
            raise InputError("Test heads are given by a split or by test_heads, not by both.")
        read = Split.read(split)
        chosen = [file for file in files if read.part_of(file) == part]
        if not chosen:
            raise InputError(f"No head is left for {part}: none fits its patterns in {split}.")
        return chosen
    fitting = {pattern: [file for file in files if fnmatch(Path(file).name, pattern)] for pattern in test_heads}
    if useless := [pattern for pattern, found in fitting.items() if not found]:
        raise InputError(f"No head is called {useless[0]}: a pattern of file names among the heads is expected.")
    test = {file for found in fitting.values() for file in found}
    of_part = {
        "training": [file for file in files if file not in test],
        "test": [file for file in files if file in test],
    }
    if not (chosen := of_part.get(part, [])):
        raise InputError(f"No head is left for {part}: some, not all, must fit a pattern of the test heads.")
    return chosen


def masks_of(
    part: Part, files: Sequence[str], test_fraction: float = 0.2, split: str | Path | None = None
) -> list[str]:
    """Return the lesion masks of one part: every mask is in the same part whenever the same masks are given.

    Args:
        part: which.
        files: all masks.
        test_fraction: share of the masks that are for the test, all others being for training.
        split: a file as :meth:`Split.read` takes it, whose shares are taken instead.

    Raises:
        InputError: when a share is not between 0 and 1, no mask is left, or there is no such part.
    """
    _check_part(part)
    validation_fraction = 0.0
    if split is not None:
        read = Split.read(split)
        test_fraction, validation_fraction = read.test_masks, read.validation_masks
    if not 0 < test_fraction < 1:
        raise InputError(f"test_masks must be between 0 and 1, got {test_fraction}.")
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_masks must be at least 0 and below 1, got {validation_fraction}.")
    order = np.random.default_rng(0).permutation(len(files))
    tested = round(test_fraction * len(files))
    validated = tested + round(validation_fraction * (len(files) - tested))
    test, validation = order[:tested].tolist(), order[tested:validated].tolist()
    chosen = {"training": order[validated:].tolist(), "validation": validation}.get(part, test)
    if not chosen and part == "validation":
        raise InputError("No mask is left for validation: a split with a share of validation_masks is expected.")
    return [files[number] for number in sorted(chosen)]


def lookalike_heads(split: str | Path | None) -> list[str]:
    """Return the patterns of heads in which no lesion is simulated; none without a split."""
    return [] if split is None else list(Split.read(split).lookalike_heads)
