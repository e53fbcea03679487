"""Checkpoints: whole or not there, the best one kept, refused with a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle.errors import InputError
from bundle.handlers import LoadCheckpoint, SaveBest, SaveLast, SaveWeights
from bundle.handlers.checkpoints import save_atomically
from bundle.weights import WeightsSettings, read_settings, write_settings

SETTINGS = WeightsSettings(
    space="native", spacing_mm=2.0, box="brain", box_mm=192, offsets=(-2, -1, 0, 1), plane="axial", threshold=0.4
)


def network(weight: float) -> nn.Linear:
    """One weight of a known value."""
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, weight)
    return linear


def after_epoch(dice: float, epoch: int = 1) -> Any:
    """An engine whose key metric has this value."""
    return SimpleNamespace(state=SimpleNamespace(key_metric_name="dice", metrics={"dice": dice}, epoch=epoch))


def saved(path: Path) -> float:
    """The weight in a file of :class:`SaveWeights`."""
    return float(torch.load(path, weights_only=True)["weight"])


@pytest.fixture
def disk_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.save`` breaks off in the middle of the file."""

    def save(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", save)


def test_a_save_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    for number in (1, 2):
        save_atomically({"number": number}, tmp_path / "new" / "last.pt")
    assert torch.load(tmp_path / "new" / "last.pt", weights_only=True) == {"number": 2}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["last.pt"]


def test_a_failing_save_leaves_the_old_file_and_no_other(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "last.pt"
    save_atomically({"number": 1}, path)
    old = path.read_bytes()
    request.getfixturevalue("disk_fills_up")
    with pytest.raises(OSError, match="No space left on device"):
        save_atomically({"number": 2}, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_first_save_leaves_no_file(tmp_path: Path, disk_fills_up: None) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        save_atomically({}, tmp_path / "last.pt")
    assert not list(tmp_path.iterdir())


def test_last_holds_the_state_of_every_part_by_name(tmp_path: Path) -> None:
    model = network(1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.25)
    handler = SaveLast(str(tmp_path / "last.pt"), {"model": model, "optimizer": optimizer})
    trainer = Engine(lambda engine, batch: None)
    handler.attach(trainer)
    trainer.run([0], max_epochs=1)
    nn.init.constant_(model.weight, 2.0)
    trainer.run([0], max_epochs=2)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert float(state["model"]["weight"]) == 2.0
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.25


def test_only_better_weights_are_kept(tmp_path: Path) -> None:
    path, model = tmp_path / "model.pt", network(0.0)
    handler = SaveBest(str(path), model, SETTINGS)
    kept = []
    for epoch, value in enumerate((0.2, 0.6, 0.4, 0.6, 0.7), start=1):
        nn.init.constant_(model.weight, epoch)
        handler(after_epoch(value, epoch))
        kept.append(saved(path))
        settings = read_settings(path)
        assert (settings.epoch, settings.validation_dice) == {1: (1, 0.2), 2: (2, 0.6), 5: (5, 0.7)}[kept[-1]]
    assert kept == [1, 2, 2, 2, 5]


def test_the_log_says_which_epoch_the_weights_are_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "model.pt")
    with caplog.at_level("INFO"):
        SaveBest(path, network(1.0), SETTINGS)(after_epoch(0.6125, 12))
        SaveWeights(path, network(1.0), SETTINGS)(after_epoch(0.3, 13))
    assert caplog.messages == [f"{path}: epoch 12, validation Dice 0.613", f"{path}: epoch 13, without validation"]


def test_the_best_value_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    before = SaveBest(str(path), network(1.0), SETTINGS)
    before(after_epoch(0.6))
    save_atomically(before.state_dict(), tmp_path / "state.pt")
    resumed = SaveBest(str(path), network(2.0), SETTINGS)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed(after_epoch(0.5))
    assert saved(path) == 1.0
    resumed(after_epoch(0.65))
    assert saved(path) == 2.0


def test_where_nothing_is_validated_the_last_weights_are_kept_whatever_the_trainer_measures(tmp_path: Path) -> None:
    path, model = tmp_path / "model.pt", network(1.0)
    handler = SaveWeights(str(path), model, SETTINGS)
    handler(after_epoch(0.6))
    nn.init.constant_(model.weight, 2.0)
    handler(after_epoch(0.5, 2))
    assert saved(path) == 2.0
    assert read_settings(path) == replace(SETTINGS, epoch=2)


def test_weights_are_loaded(tmp_path: Path) -> None:
    torch.save(network(3.0).state_dict(), tmp_path / "model.pt")
    model = network(0.0)
    LoadCheckpoint(str(tmp_path / "model.pt"), {"model": model})(Engine(lambda engine, batch: None))
    assert float(model.weight.detach()) == 3.0


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt does not exist: weights or a checkpoint of an earlier run"):
        LoadCheckpoint(str(tmp_path / "none.pt"), {"model": network(0.0)})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"model\.pt could not be loaded into this network: \S"),
        (b"<html>404</html>", r"model\.pt is a web page: download the file itself"),
    ],
    ids=["empty", "a web page"],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_in_one_line(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    handler = LoadCheckpoint(str(tmp_path / "model.pt"), {"model": network(0.0)})
    with pytest.raises(InputError, match=sentence) as caught:
        handler(Engine(lambda engine, batch: None))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [nn.Linear(1, 1), nn.Linear(2, 1, bias=False), nn.Conv1d(1, 1, 1)], ids=str)
def test_weights_of_another_network_are_refused(other: nn.Module, tmp_path: Path) -> None:
    torch.save(other.state_dict(), tmp_path / "model.pt")
    model = network(5.0)
    handler = LoadCheckpoint(str(tmp_path / "model.pt"), {"model": model})
    with pytest.raises(InputError, match=r"model\.pt could not be loaded into this network: Error\(s\) in loading"):
        handler(Engine(lambda engine, batch: None))


# Weights of another network


class Wider(nn.Module):
    """As :func:`network` where the names are, with a second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = network(1.0), nn.Linear(1, 2)


def test_the_fitting_weights_of_another_network_are_loaded_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"first.weight": torch.tensor([[4.0]]), "second.weight": torch.zeros(3, 1)}, tmp_path / "other.pt")
    model = Wider()
    before = model.second.weight.clone()
    engine = Engine(lambda engine, batch: None)
    LoadCheckpoint(str(tmp_path / "other.pt"), {"model": model}, strict=False).attach(engine)
    with caplog.at_level("INFO"):
        engine.run([0])
    assert model.first.weight.item() == 4.0
    assert torch.equal(model.second.weight, before)
    assert "1 parts loaded; not loaded: second.bias, second.weight" in caplog.text


def test_weights_of_which_nothing_fits_are_refused_even_when_not_strict(tmp_path: Path) -> None:
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    engine = Engine(lambda engine, batch: None)
    LoadCheckpoint(str(tmp_path / "other.pt"), {"model": Wider()}, strict=False).attach(engine)
    with pytest.raises(InputError, match=r"other\.pt has no weights that fit this network"):
        engine.run([0])


# Weights of images that were prepared in another way


def load_for(settings: WeightsSettings, folder: Path) -> None:
    """Load the weights of ``folder`` to go on from, for a training with these settings."""
    torch.save(network(3.0).state_dict(), folder / "model.pt")
    handler = LoadCheckpoint(str(folder / "model.pt"), {"model": network(0.0)}, settings=settings)
    handler(Engine(lambda engine, batch: None))


def test_finetuning_at_another_spacing_warns_and_names_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_settings(tmp_path / "model.pt", SETTINGS)
    load_for(replace(SETTINGS, spacing_mm=1.0, space="mni"), tmp_path)
    (warning,) = (record.getMessage() for record in caplog.records if record.name == "bundle.weights")
    assert warning.endswith(
        "model.pt was trained with space native and not mni, spacing_mm 2.0 and not 1.0 as in this training."
    )


def test_finetuning_with_the_weights_own_settings_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_settings(tmp_path / "model.pt", replace(SETTINGS, epoch=3, threshold=0.5))
    load_for(SETTINGS, tmp_path)
    assert not [record for record in caplog.records if record.name == "bundle.weights"]


def test_weights_without_settings_can_be_finetuned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_for(SETTINGS, tmp_path)
    assert not [record for record in caplog.records if record.name == "bundle.weights"]


# Data that changed while a training was stopped


def test_a_resumed_training_has_as_many_batches_an_epoch_as_its_data_today(tmp_path: Path) -> None:
    def trainer(batches: int) -> tuple[Engine, list[tuple[int, int]]]:
        seen: list[tuple[int, int]] = []
        made = Engine(lambda engine, batch: seen.append((engine.state.epoch, batch)))
        made.state.max_epochs, made.state.epoch_length = 3, batches
        return made, seen

    path, model = str(tmp_path / "last.pt"), network(1.0)
    stopped, _ = trainer(2)
    SaveLast(path, {"model": model, "trainer": stopped}).attach(stopped)
    stopped.run([0, 1], max_epochs=1)
    resumed, seen = trainer(3)
    LoadCheckpoint(path, {"model": model, "trainer": resumed}).attach(resumed)
    resumed.run([0, 1, 2], max_epochs=3)
    assert seen == [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
    assert resumed.state.iteration == 9
