"""The results page from a comparison of networks: ``python -m scripts.thesis.results COMPARISON docs``."""

from __future__ import annotations

from pathlib import Path

from scripts.command import run_command

__all__ = ["results"]


def results(comparison: str, docs: str = "docs", test: str | None = None) -> None:
    """Write DOCS/results.md and DOCS/results_*.png from the output of scripts.thesis.compare.

    Args:
        comparison: the output folder of scripts.thesis.compare.
        docs: the folder to write to.
        test: the folder of the test cases, for the pictures; where they were at the evaluation unless given.
    """
    from scripts.thesis.results_page import write_page

    count = write_page(Path(comparison), Path(docs), None if test is None else Path(test))
    print(f"{count} networks: {Path(docs) / 'results.md'}")


if __name__ == "__main__":
    run_command(results)
