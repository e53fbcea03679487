"""Cases of a cohort, and sentences on what cannot be used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.files import check_readable, images_below

__all__ = ["Case", "Cohort", "case_of", "image_files", "repeated_cases", "without_testing"]


@dataclass(frozen=True)
class Case:
    """A T1w image and its lesion masks."""

    name: str
    subject: str
    image: Path
    masks: tuple[Path, ...]
    session: str | None = None
    site: str | None = None


@dataclass
class Cohort:
    """The cases of a folder, sentences on the faults in it, and notes on what was left out."""

    cases: list[Case] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: Case | str) -> None:
        """Add a case, or a sentence on why there is none."""
        if isinstance(case, Case):
            self.cases.append(case)
        else:
            self.problems.append(case)


def image_files(root: Path) -> list[Path]:
    """Return all images below a folder, sorted by their paths, links to missing ones included.

    Raises:
        InputError: if a folder in it cannot be read.
    """
    files = images_below(root)
    check_readable(files)
    return sorted(files)


def without_testing(files: Sequence[Path], root: Path) -> tuple[list[Path], list[str]]:
    """Return the files that are not in a challenge's Testing folder, and a note on the others."""
    hidden = [file for file in files if "testing" in str(file.relative_to(root).parent).lower()]
    note = f"left out: images in a Testing folder, whose masks are not public ({len(hidden)})"
    return [file for file in files if file not in set(hidden)], [note] if hidden else []


def case_of(folder: Path, images: Sequence[Path], masks: Sequence[Path], facts: dict[str, str]) -> Case | str:
    """Return the case of a folder, or a sentence if it does not have one T1w image and at least one mask.

    Args:
        folder: folder of the case.
        images: its T1w images.
        masks: its lesion masks.
        facts: ``name`` and ``subject``, and ``session`` and ``site`` if they are known.
    """
    if not images:
        return f"{folder} has no T1w image: one is expected beside its lesion masks."
    if len(images) > 1:
        return f"{folder} has {len(images)} T1w images, {' and '.join(file.name for file in images)}: one is expected."
    if not masks:
        return f"{folder} has no lesion mask: one or more are expected beside {images[0].name}."
    return Case(image=images[0], masks=tuple(masks), **facts)


def repeated_cases(cases: Iterable[Case]) -> list[str]:
    """Return a sentence for each name that several cases have."""
    images = defaultdict(list)
    for case in cases:
        images[case.name].append(str(case.image))
    return [
        f"Case {name} exists {len(files)} times, as {' and '.join(files)}: once is expected."
        for name, files in images.items()
        if len(files) > 1
    ]
