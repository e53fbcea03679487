"""What a layout's reader finds: cases, and a sentence for everything that is not one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.files import images_below

__all__ = ["Case", "Cohort", "case_of", "image_files", "repeated_cases", "without_testing"]


@dataclass(frozen=True)
class Case:
    """One T1w image and the lesion masks that belong to it."""

    name: str
    subject: str
    image: Path
    masks: tuple[Path, ...]
    session: str | None = None
    site: str | None = None


@dataclass
class Cohort:
    """The cases of a folder, sentences on what is wrong there, and notes on what was left out."""

    cases: list[Case] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: Case | str) -> None:
        """Adds a case, or the sentence on why there is none."""
        if isinstance(case, Case):
            self.cases.append(case)
        else:
            self.problems.append(case)


def image_files(root: Path) -> list[Path]:
    """Return all images below a folder, sorted by their paths."""
    return sorted(file for file in images_below(root) if file.is_file())


def without_testing(files: Sequence[Path], root: Path) -> tuple[list[Path], list[str]]:
    """The files that are in no folder of a challenge's hidden test, and a note on the others."""
    hidden = [file for file in files if "testing" in str(file.relative_to(root).parent).lower()]
    note = f"left out: images in a Testing folder, whose masks are not public ({len(hidden)})"
    return [file for file in files if file not in set(hidden)], [note] if hidden else []


def case_of(folder: Path, images: Sequence[Path], masks: Sequence[Path], facts: dict[str, str]) -> Case | str:
    """The case in a folder that holds one T1w image and its masks, or a sentence on what it has too much or too little.

    Args:
        folder: of the case.
        images: its T1w images.
        masks: its lesion masks.
        facts: ``name`` and ``subject``, and ``session`` and ``site`` where they are known.
    """
    if not images:
        return f"{folder} has no T1w image: one is expected beside its lesion masks."
    if len(images) > 1:
        return f"{folder} has {len(images)} T1w images, {' and '.join(file.name for file in images)}: one is expected."
    if not masks:
        return f"{folder} has no lesion mask: one or more are expected beside {images[0].name}."
    return Case(image=images[0], masks=tuple(masks), **facts)


def repeated_cases(cases: Iterable[Case]) -> list[str]:
    """A sentence for every name that several cases have."""
    images = defaultdict(list)
    for case in cases:
        images[case.name].append(str(case.image))
    return [
        f"Case {name} is there {len(files)} times, as {' and '.join(files)}: once is expected."
        for name, files in images.items()
        if len(files) > 1
    ]
