"""Which heads and masks are for training, and which never are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bundle.errors import InputError

__all__ = ["Part", "heads_of", "masks_of"]

Part = Literal["training", "test"]


def _check_part(part: str) -> None:
    if part not in get_args(Part):
        raise InputError(f"part must be {' or '.join(get_args(Part))}, got {part}.")


def heads_of(part: Part, files: Sequence[str], test_heads: Sequence[str]) -> list[str]:
    """The heads of one part.

    Args:
        part: which.
        files: all heads.
        test_heads: shell patterns of the file names of the test heads; one pattern for all files of a person keeps
            them on one side.

    Raises:
        InputError: when a pattern fits no head, no head is left, or there is no such part.
    """
    _check_part(part)
    fitting = {pattern: [file for file in files if fnmatch(Path(file).name, pattern)] for pattern in test_heads}
    if useless := [pattern for pattern, found in fitting.items() if not found]:
        raise InputError(f"No head is called {useless[0]}: a pattern of file names among the heads is expected.")
    test = {file for found in fitting.values() for file in found}
    chosen = [file for file in files if (file in test) == (part == "test")]
    if not chosen:
        raise InputError(f"No head is left for {part}: some, not all, must fit a pattern of the test heads.")
    return chosen


def masks_of(part: Part, files: Sequence[str], test_fraction: float) -> list[str]:
    """The lesion masks of one part: every mask is on the same side whenever the same masks are given.

    Args:
        part: which.
        files: all masks.
        test_fraction: share of the masks that are for the test.

    Raises:
        InputError: when the share is not between 0 and 1, or there is no such part.
    """
    _check_part(part)
    if not 0 < test_fraction < 1:
        raise InputError(f"test_masks must be between 0 and 1, got {test_fraction}.")
    order = np.random.default_rng(0).permutation(len(files))
    test = set(order[: round(test_fraction * len(files))].tolist())
    return [file for number, file in enumerate(files) if (number in test) == (part == "test")]
