"""The table of an evaluation."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events

from bundle.files import write_atomically
from bundle.metrics import case_metrics, summarize

__all__ = ["CaseTable"]

_log = logging.getLogger(__name__)


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
        write_atomically(_csv(rows), self.output_dir / "cases.csv")
        summary = summarize(rows)
        write_atomically(json.dumps(summary, indent=1) + "\n", self.output_dir / "summary.json")
        _log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in summary.items()))


def _csv(rows: list[dict[str, Any]]) -> str:
    """A distance that is not defined is an empty cell."""
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    return table.getvalue()
