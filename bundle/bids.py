"""Parsing of BIDS file names such as ``sub-01_ses-1_T1w.nii.gz``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bundle.files import stem

__all__ = ["BidsName", "find_subject", "parse_name"]

_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")


@dataclass(frozen=True)
class BidsName:
    """The parts of a file's name between underscores.

    Args:
        entities: such as ``{"sub": "01", "ses": "1"}``, in their order.
        words: parts without a hyphen before the last one, such as T2w in ``sub-01_T2w_desc-lesion_mask``.
        suffix: the last part, such as ``T1w``.
    """

    entities: dict[str, str]
    words: tuple[str, ...]
    suffix: str

    @property
    def is_t1w(self) -> bool:
        """Return whether it is the name of a subject's T1w image."""
        return "sub" in self.entities and self.suffix == "T1w"


def parse_name(path: str | Path) -> BidsName:
    """Return the parts of a file's name, which need not be a BIDS name."""
    *parts, suffix = stem(path).split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    return BidsName(entities, tuple(part for part in parts if "-" not in part), suffix)


def find_subject(path: str | Path) -> str | None:
    """Return the first ``sub-<label>`` in a path, or None if there is none."""
    found = _SUBJECT.search(str(path))
    return found and found[0]
