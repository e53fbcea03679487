"""Checkpoints: whole or not there, the best one kept, refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle.errors import InputError
from bundle.handlers import LoadCheckpoint, SaveBest, SaveLast, SaveWeights, load_ensemble, read_settings
from bundle.handlers.checkpoints import save_atomically

SETTINGS = {
    "space": "native",
    "spacing_mm": 2.0,
    "box": "brain",
    "slice_size": 96,
    "offsets": [-2, -1, 0, 1],
    "plane": "axial",
    "threshold": 0.4,
}


def network(weight: float) -> nn.Linear:
    """One weight of a known value."""
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, weight)
    return linear


def after_epoch(dice: float) -> Any:
    """An engine whose key metric has this value."""
    return SimpleNamespace(state=SimpleNamespace(key_metric_name="dice", metrics={"dice": dice}))


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
        handler(after_epoch(value))
        kept.append(saved(path))
    assert kept == [1, 2, 2, 2, 5]


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
    handler(after_epoch(0.5))
    assert saved(path) == 2.0
    assert read_settings(str(path)) == SETTINGS


def test_settings_are_read_back_from_beside_the_weights(tmp_path: Path) -> None:
    SaveBest(str(tmp_path / "model.pt"), network(1.0), SETTINGS)(after_epoch(0.5))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.pt"]
    assert read_settings(str(tmp_path / "model.pt")) == SETTINGS


@pytest.mark.parametrize(("name", "value"), [("plane", "axial"), ("threshold", 0.5)])
def test_what_weights_of_earlier_versions_do_not_say_was_always_the_same(
    name: str, value: object, tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text(json.dumps({k: v for k, v in SETTINGS.items() if k != name}))
    assert read_settings(str(tmp_path / "model.pt")) == SETTINGS | {name: value}


def test_further_weights_are_loaded_into_copies_with_their_planes(tmp_path: Path) -> None:
    files = []
    for plane, weight in (("coronal", 2.0), ("axial", 3.0)):
        files.append(str(tmp_path / plane / "model.pt"))
        SaveBest(files[-1], network(weight), {**SETTINGS, "plane": plane, "threshold": 0.5})(after_epoch(0.5))
    own = network(1.0).train()
    further = load_ensemble(own, files, SETTINGS)
    assert [(plane, one.weight.item(), one.training) for plane, one in further] == [
        ("coronal", 2.0, False),
        ("axial", 3.0, False),
    ]
    assert own.weight.item() == 1.0


def test_further_weights_of_other_images_or_networks_are_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "model.pt")
    SaveBest(file, network(1.0), {**SETTINGS, "spacing_mm": 1.0, "plane": "coronal"})(after_epoch(0.5))
    with pytest.raises(InputError, match=r"cannot be averaged .* trained with spacing_mm 1\.0 and not 2\.0\."):
        load_ensemble(network(1.0), [file], SETTINGS)
    SaveBest(file, nn.Linear(2, 1), SETTINGS)(after_epoch(0.5))
    with pytest.raises(InputError, match=r"model\.pt could not be loaded into this network"):
        load_ensemble(network(1.0), [file], SETTINGS)
    with pytest.raises(InputError, match=r"none\.pt does not exist"):
        load_ensemble(network(1.0), [str(tmp_path / "none.pt")], SETTINGS)


@pytest.mark.parametrize("content", [None, "", '{"spacing_mm": 2.0,', b"\xff\xfe\x00"], ids=str)
def test_missing_and_damaged_settings_are_refused(content: str | bytes | None, tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    if content is not None:
        (tmp_path / "model.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"model\.pt cannot be used: .*model\.json, which says .* missing or damaged"):
        read_settings(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("content", ["[]", "2.0", json.dumps({"spacing_mm": 2.0})])
def test_settings_that_lack_something_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(
        InputError, match=r"model\.json, which .* must hold box, offsets, slice_size, space, spacing_mm\."
    ):
        read_settings(str(tmp_path / "model.pt"))


def test_where_the_weights_are_missing_too_they_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pt does not exist: weights or a checkpoint"):
        read_settings(str(tmp_path / "model.pt"))


def test_weights_are_loaded(tmp_path: Path) -> None:
    torch.save(network(3.0).state_dict(), tmp_path / "model.pt")
    model = network(0.0)
    LoadCheckpoint(str(tmp_path / "model.pt"), {"model": model})(Engine(lambda engine, batch: None))
    assert float(model.weight.detach()) == 3.0


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt does not exist: weights or a checkpoint of an earlier run"):
        LoadCheckpoint(str(tmp_path / "none.pt"), {"model": network(0.0)})


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"], ids=["empty", "a web page"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    handler = LoadCheckpoint(str(tmp_path / "model.pt"), {"model": network(0.0)})
    with pytest.raises(InputError, match=r"model\.pt could not be loaded into this network: \S") as caught:
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


def test_of_another_network_what_fits_is_taken_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"first.weight": torch.tensor([[4.0]]), "second.weight": torch.zeros(3, 1)}, tmp_path / "other.pt")
    model = Wider()
    before = model.second.weight.clone()
    engine = Engine(lambda engine, batch: None)
    LoadCheckpoint(str(tmp_path / "other.pt"), {"model": model}, partly=True).attach(engine)
    with caplog.at_level("INFO"):
        engine.run([0])
    assert model.first.weight.item() == 4.0
    assert torch.equal(model.second.weight, before)
    assert "1 parts taken; new are second.bias, second.weight" in caplog.text


def test_where_nothing_fits_partly_is_refused(tmp_path: Path) -> None:
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    engine = Engine(lambda engine, batch: None)
    LoadCheckpoint(str(tmp_path / "other.pt"), {"model": Wider()}, partly=True).attach(engine)
    with pytest.raises(InputError, match=r"other\.pt holds nothing that fits this network"):
        engine.run([0])
