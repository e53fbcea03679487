"""The table of an evaluation."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch.distributed as dist
from ignite.engine import Engine, Events

from bundle.files import write_atomically, write_json
from bundle.metrics import Lesion, case_metrics, summarize, true_lesions
from bundle.weights import describe_weights, weights_hash

__all__ = ["CaseTable"]

_log = logging.getLogger(__name__)


class CaseTable:
    """Handler that writes ``cases.csv``, a row per case, ``lesions.csv``, a row per true lesion, and ``summary.json``.

    The summary says which weights all three are of, by path and SHA-256, and is logged; what is not defined is null.

    The metrics and the empty-mask rule are those of :func:`bundle.metrics.case_metrics`, the lesions those of
    :func:`bundle.metrics.true_lesions`. With several processes the first one writes the cases of all.

    Args:
        output_dir: the folder to write to.
        weights: the file of the network's weights.
        ensemble_weights: those of the networks that are averaged with it.
    """

    def __init__(self, output_dir: str, weights: str, ensemble_weights: Sequence[str] = ()) -> None:
        self.output_dir = Path(output_dir)
        self.weights = [weights, *ensemble_weights]
        self.metrics: dict[str, dict[str, float]] = {}
        self.lesions: dict[str, list[Lesion]] = {}

    def attach(self, engine: Engine) -> None:
        """Attaches to an evaluator whose output is decollated: ``pred`` and ``label`` are ``(1, H, W, D)``."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Begins an evaluation."""
        self.metrics.clear()
        self.lesions.clear()
        for weights in self.weights if idist.get_rank() == 0 else ():
            _log.info("Evaluating %s", describe_weights(weights))

    def add(self, engine: Engine) -> None:
        """Adds the cases of one iteration."""
        for item in engine.state.output:
            pred, label, spacing_mm = item["pred"][0].cpu(), item["label"][0].cpu(), item["label"].pixdim.tolist()
            case = str(item["label"].meta["filename_or_obj"])
            self.metrics[case] = case_metrics(pred, label, spacing_mm)
            self.lesions[case] = true_lesions(pred, label, spacing_mm)

    def finish(self, engine: Engine) -> None:
        """Writes the three files."""
        metrics, lesions = self.metrics, self.lesions
        if dist.is_available() and dist.is_initialized():
            gathered: list[tuple[dict, dict]] = [({}, {})] * dist.get_world_size()
            dist.all_gather_object(gathered, (metrics, lesions))
            if dist.get_rank() > 0:
                return
            # The sampler of several processes repeats cases to even them out; a repeated one has the same key.
            metrics, lesions = (
                {k: v for part in parts for k, v in part.items()} for parts in zip(*gathered, strict=True)
            )
        cases = sorted(metrics)
        rows = [{"case": case, **metrics[case]} for case in cases]
        write_atomically(_csv(rows, list(rows[0])), self.output_dir / "cases.csv")
        sizes = [
            {"case": case, **lesion._asdict(), "found": int(lesion.found)} for case in cases for lesion in lesions[case]
        ]
        write_atomically(_csv(sizes, ["case", *Lesion._fields]), self.output_dir / "lesions.csv")
        summary = summarize([metrics[case] for case in cases])
        defined = {name: None if value != value else value for name, value in summary.items()}
        write_json({**self._weights(), **defined}, self.output_dir / "summary.json")
        _log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in summary.items()))

    def _weights(self) -> dict[str, Any]:
        own, *others = ({"weights": str(file), "weights_hash": weights_hash(file)} for file in self.weights)
        return {**own, "ensemble_weights": others} if others else own


def _csv(rows: list[dict[str, Any]], names: list[str]) -> str:
    """A distance that is not defined is an empty cell."""
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    return table.getvalue()
