"""The table of an evaluation."""

from __future__ import annotations

import csv
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events

from bundle.metrics import case_metrics, summarize

__all__ = ["CaseTable"]

_log = logging.getLogger(__name__)


def _write(path: Path, text: str) -> None:
    """The file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


class CaseTable:
    """Writes ``cases.csv``, a row per case, and ``summary.json``; prints the summary.

    The metrics and the empty-mask rule are those of :func:`bundle.metrics.case_metrics`. With several processes the
    first one writes the cases of all.

    Args:
        output_dir: the folder to write to.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Attaches to an evaluator whose output is decollated: ``pred`` and ``label`` are ``(1, H, W, D)``."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def add(self, engine: Engine) -> None:
        """Adds the cases of one iteration."""
        for item in engine.state.output:
            pred, label = item["pred"], item["label"]
            metrics = case_metrics(pred[0].cpu(), label[0].cpu(), label.pixdim.tolist())
            self.rows.append({"case": str(label.meta["filename_or_obj"]), **metrics})

    def finish(self, engine: Engine) -> None:
        """Writes both files."""
        rows = self.rows
        if dist.is_available() and dist.is_initialized():
            gathered: list[list[dict]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, rows)
            # The sampler of several processes repeats cases to even them out.
            rows = list({row["case"]: row for part in gathered for row in part}.values())
            if dist.get_rank() > 0:
                return
        rows = sorted(rows, key=lambda row: row["case"])
        lines = [",".join(rows[0])]
        lines += [",".join(_cell(value) for value in row.values()) for row in rows]
        _write(self.output_dir / "cases.csv", "\n".join(lines) + "\n")
        summary = summarize(rows)
        _write(self.output_dir / "summary.json", json.dumps(summary, indent=1) + "\n")
        _log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in summary.items()))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    text = str(value)
    return f'"{text}"' if "," in text else text
