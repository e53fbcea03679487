"""The table of an evaluation."""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
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

    A case is named by its label's file, or by its image's where several images have the same label. The summary holds
    the weights that all three are of, by path and SHA-256, and is logged; what is not defined is null.

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
        self.cases: dict[tuple[str, str], tuple[dict[str, float], list[Lesion]]] = {}
        """Metrics and lesions by the files of label and image: a repeated case is the same."""

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose output is decollated: ``pred``, ``label`` and ``image`` are ``(1, H, W, D)``."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Begin an evaluation."""
        self.cases.clear()
        for weights in self.weights if idist.get_rank() == 0 else ():
            _log.info("Evaluating %s", describe_weights(weights))

    def add(self, engine: Engine) -> None:
        """Add the cases of one iteration."""
        for item in engine.state.output:
            masks = item["pred"][0].cpu(), item["label"][0].cpu(), item["label"].pixdim.tolist()
            files = str(item["label"].meta["filename_or_obj"]), str(item["image"].meta["filename_or_obj"])
            self.cases[files] = case_metrics(*masks), true_lesions(*masks)

    def finish(self, engine: Engine) -> None:
        """Write the three files."""
        gathered = [self.cases]
        if dist.is_available() and dist.is_initialized():
            gathered *= dist.get_world_size()
            dist.all_gather_object(gathered, self.cases)
            if dist.get_rank() > 0:
                return
        # The sampler of several processes repeats cases, so that each has as many.
        cases = sorted({files: case for part in gathered for files, case in part.items()}.items())
        images = Counter(label for (label, _), _ in cases)
        named = [(label if images[label] == 1 else image, *case) for (label, image), case in cases]

        rows = [{"case": name, **metrics} for name, metrics, _ in named]
        write_atomically(_csv(rows, list(rows[0])), self.output_dir / "cases.csv")
        sizes = [
            {"case": name, **lesion._asdict(), "found": int(lesion.found)}
            for name, _, lesions in named
            for lesion in lesions
        ]
        write_atomically(_csv(sizes, ["case", *Lesion._fields]), self.output_dir / "lesions.csv")
        summary = summarize([metrics for _, metrics, _ in named])
        write_json({**self._weights(), **summary}, self.output_dir / "summary.json")
        _log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in summary.items()))

    def _weights(self) -> dict[str, Any]:
        own, *others = ({"weights": str(file), "weights_hash": weights_hash(file)} for file in self.weights)
        return {**own, "ensemble_weights": others} if others else own


def _csv(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Return a table in which a value that is not defined is an empty cell."""
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    return table.getvalue()
