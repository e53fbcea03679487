"""The means of the loss and its parts over an epoch, with MONAI's trainer."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss, DiceLoss, FocalLoss
from torch import nn

from bundle.errors import InputError
from bundle.handlers import LossParts
from bundle.networks import NetworkOutput


class Square(nn.Module):
    """Mean squared error."""

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return ((pred - label) ** 2).mean()


class SquareAndAbsolute(Square):
    """Twice the mean squared error and a tenth of the mean absolute one."""

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        parts = {"square": 2 * super().forward(pred, label), "absolute": 0.1 * (pred - label).abs().mean()}
        self.latest_parts = {name: value.detach() for name, value in parts.items()}
        return sum(parts.values())


def batch(image: float, label: float) -> dict[str, torch.Tensor]:
    return {"image": torch.full((1, 1), image), "label": torch.full((1, 1), label)}


# With a weight of 1 the errors are 1, 2 and 4 in the first three iterations.
BATCHES = [batch(1.0, 0.0), batch(3.0, 1.0), batch(0.0, 4.0)]


class WithSides(nn.Linear):
    """A network that gives more than logits."""

    def forward(self, x: torch.Tensor) -> NetworkOutput:
        logits = super().forward(x)
        return NetworkOutput(logits[..., None, None], [logits], [])


def one_weight(kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    network = kind(1, 1, bias=False)
    nn.init.ones_(network.weight)
    return network


def train(
    loss: nn.Module,
    batches: list[dict[str, torch.Tensor]],
    epochs: int = 1,
    lr: float = 0.0,
    network: nn.Module | None = None,
) -> list[dict]:
    """The metrics after each epoch of a network, by default with one weight, 1."""
    network = one_weight() if network is None else network
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=loss,
        train_handlers=[LossParts()],
        decollate=False,
    )
    history: list[dict] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: history.append(dict(engine.state.metrics)))
    trainer.run()
    return history


def test_the_means_are_those_of_the_iterations() -> None:
    metrics = train(SquareAndAbsolute(), BATCHES)[0]
    # Squares 1, 4, 16: mean 7; absolute errors 1, 2, 4: mean 7 / 3.
    assert metrics == pytest.approx({"loss": 14 + 0.7 / 3, "loss_square": 14, "loss_absolute": 0.7 / 3})


def test_a_loss_without_parts_gives_its_mean_alone() -> None:
    assert train(Square(), BATCHES)[0] == pytest.approx({"loss": 7.0})


def test_every_epoch_starts_from_zero() -> None:
    """The error is 1, and with a learning rate of a quarter half as large after each step: w - 2 * w / 4."""
    history = train(Square(), [batch(1.0, 0.0)], epochs=3, lr=0.25)
    assert [metrics["loss"] for metrics in history] == pytest.approx([1.0, 1 / 4, 1 / 16])


def test_the_parts_are_those_of_the_prediction_before_the_step() -> None:
    metrics = train(SquareAndAbsolute(), [batch(1.0, 0.0)], lr=0.1)[0]
    assert metrics["loss_square"] == pytest.approx(2.0)
    assert metrics["loss_square"] + metrics["loss_absolute"] == pytest.approx(metrics["loss"])


@pytest.mark.parametrize(
    "loss", [DiceCELoss(sigmoid=True), DiceLoss(sigmoid=True), DiceLoss(), FocalLoss(), nn.BCEWithLogitsLoss()]
)
def test_a_loss_of_logits_for_a_network_that_gives_more_names_the_way(loss: nn.Module) -> None:
    name = type(loss).__name__
    written = r'write {"_target_": "bundle\.losses\.TSRLLoss", "loss": {\.\.\.}}'
    with pytest.raises(InputError, match=f"^The loss {name} takes logits, .+: {written} with {name} and its arguments"):
        train(loss, BATCHES, network=one_weight(WithSides))


class Broken(Square):
    """A loss with an error of its own."""

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        raise TypeError("something else")


def test_another_error_of_a_loss_stays_what_it_is() -> None:
    with pytest.raises(TypeError, match=r"^something else$"):
        train(Broken(), BATCHES)
