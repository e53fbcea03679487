"""Loss components and a progress bar of a training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from ignite.metrics import Metric
from monai.engines.utils import IterationEvents

from bundle.errors import InputError
from bundle.networks import NetworkOutput

__all__ = ["EpochMetrics", "IterationBar", "LossParts"]


class LossParts:
    """Handler that adds an epoch's means of the loss and its parts to the trainer's metrics, as ``loss_final``.

    The parts are the loss function's ``latest_parts``, so that they are not computed a second time. For a loss function
    without them there is the loss alone. One that takes logits only, for a network that gives more, ends the training
    with a sentence.
    """

    def __init__(self) -> None:
        self.sums: defaultdict[str, torch.Tensor | float] = defaultdict(float)
        self.count = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a ``SupervisedTrainer``, before the handlers that print metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.explain)

    def start(self, engine: Engine) -> None:
        """Begin an epoch."""
        self.sums.clear()
        self.count = 0

    def add(self, engine: Engine) -> None:
        """Add an iteration, as tensors, so that it does not wait for the device."""
        self.sums["loss"] += engine.state.output["loss"].detach()
        self.count += 1
        for name, value in getattr(engine.loss_function, "latest_parts", {}).items():
            self.sums[f"loss_{name}"] += value

    def finish(self, engine: Engine) -> None:
        """Set the engine's metrics to the means over all processes."""
        for name in sorted(self.sums):
            mean = idist.all_reduce(float(self.sums[name]) / self.count) / idist.get_world_size()
            engine.state.metrics[name] = mean

    def explain(self, engine: Engine, error: Exception) -> None:
        """Raise an error of the training again: ignite leaves that to the handlers of errors.

        Raises:
            InputError: in place of what a loss of logits says about a ``NetworkOutput``.
            Exception: the error itself, if it is another one.
        """
        if not isinstance(error, AttributeError | TypeError) or NetworkOutput.__name__ not in str(error):
            raise error
        loss = type(engine.loss_function).__name__
        raise InputError(
            f"The loss {loss} takes logits, but the network also gives side outputs or patch scores: write "
            '{"_target_": "bundle.losses.TSRLLoss", "loss": {...}} '
            f"with {loss} and its arguments in the inner braces, see docs/losses.md."
        ) from error


class EpochMetrics:
    """Handler that reports metrics of a training which do not decide on the best epoch.

    MONAI's trainer attaches additional metrics only beside a key metric, and logs that one as the best so far, although
    the validation decides.

    Args:
        metrics: by the name under which they are reported.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = metrics

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handlers that print metrics."""
        for name, metric in self.metrics.items():
            metric.attach(engine, name)


class IterationBar:
    """Progress bar over the iterations of an epoch, with the loss.

    Args:
        name: label of the bar.
    """

    def __init__(self, name: str) -> None:
        self.bar = ProgressBar(persist=True, desc=name)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self.bar.attach(engine, output_transform=lambda output: {"loss": output["loss"].item()})
