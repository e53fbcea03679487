"""What a training tells while it runs."""

from __future__ import annotations

from collections import defaultdict

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines.utils import IterationEvents

__all__ = ["IterationBar", "LossParts"]


class LossParts:
    """Means of the loss and of each of its parts over an epoch, as metrics of the trainer: ``loss``, ``loss_final``...

    The parts come from the loss function's ``latest_parts``, those of its last call: computing them again for the log
    would cost a loss in every step. A loss function without them gives the loss alone.
    """

    def __init__(self) -> None:
        self.sums: defaultdict[str, torch.Tensor | float] = defaultdict(float)
        self.count = 0

    def attach(self, engine: Engine) -> None:
        """Attaches to a ``SupervisedTrainer``, before the handlers that print metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Begins an epoch."""
        self.sums.clear()
        self.count = 0

    def add(self, engine: Engine) -> None:
        """Adds one iteration, as tensors: a number would have to wait for the device."""
        self.sums["loss"] += engine.state.output["loss"].detach()
        self.count += 1
        for name, value in getattr(engine.loss_function, "latest_parts", {}).items():
            self.sums[f"loss_{name}"] += value

    def finish(self, engine: Engine) -> None:
        """Hands the means to the engine, over all processes."""
        for name in sorted(self.sums):
            mean = idist.all_reduce(float(self.sums[name]) / self.count) / idist.get_world_size()
            engine.state.metrics[name] = mean


class IterationBar:
    """A progress bar over the iterations of an epoch, with the loss.

    Args:
        name: what runs.
    """

    def __init__(self, name: str) -> None:
        self.bar = ProgressBar(persist=True, desc=name)

    def attach(self, engine: Engine) -> None:
        """Attaches to a trainer."""
        self.bar.attach(engine, output_transform=lambda output: {"loss": output["loss"].item()})
