"""The mean of weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bundle.errors import InputError
from bundle.weights import read_settings
from scripts.average import average

SETTINGS = {"space": "mni", "spacing_mm": 2.0, "box": "brain", "box_mm": 192.0, "offsets": [-2, -1, 0, 1]}


def state(*values: float, count: int = 7) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor(values), "batches": torch.tensor(count)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training whose weights and their average are known."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"model": state(9.0, 9.0), "ema": state(1.0, 2.0), "best": {"best": 0.5}}, folder / "last.pt")
    torch.save({"model": state(-1.0, 0.0)}, folder / "plain.pt")
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in state(4.0, 0.5).items()}, folder / "a.pt")
    (folder / "model.json").write_text(json.dumps(SETTINGS | {"epoch": 12, "validation_dice": 0.6}))
    (folder / "a.json").write_text(json.dumps(SETTINGS | {"threshold": 0.4}))
    return folder


def test_checkpoints_give_their_average_of_weights_and_all_are_averaged(run: Path, tmp_path: Path) -> None:
    """(1 + 4 - 1) / 3 and (2 + 0.5 + 0) / 3, as float16; a count is no weight."""
    output = tmp_path / "new" / "mean.pt"
    average(str(run / "last.pt"), str(run / "a.pt"), str(run / "plain.pt"), output=str(output))
    mean = torch.load(output, weights_only=True)
    assert mean["weight"].dtype == torch.float16
    assert mean["weight"].tolist() == torch.tensor([4 / 3, 2.5 / 3]).half().tolist()
    assert mean["batches"].item() == 7
    assert mean["batches"].dtype == torch.int64
    assert read_settings(str(output)).threshold == 0.5


def test_one_checkpoint_becomes_float16_with_the_settings_of_its_training(run: Path, tmp_path: Path) -> None:
    average(str(run / "last.pt"), output=str(tmp_path / "one.pt"))
    assert torch.load(tmp_path / "one.pt", weights_only=True)["weight"].tolist() == [1.0, 2.0]
    others = {"plane": "axial", "threshold": 0.5, "epoch": None, "validation_dice": None}
    assert json.loads((tmp_path / "one.json").read_text()) == SETTINGS | others


def test_settings_beside_the_first_weights_are_kept(run: Path) -> None:
    average(str(run / "a.pt"), str(run / "last.pt"), output=str(run / "a.pt"))
    assert torch.load(run / "a.pt", weights_only=True)["weight"].tolist() == [2.5, 1.25]
    assert read_settings(str(run / "a.pt")).threshold == 0.4


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "Weights or checkpoints to average are expected"),
        (["nowhere.pt"], r"nowhere\.pt does not exist"),
        (["last.pt", "other.pt"], r"other\.pt cannot be averaged with .*last\.pt: it is of another network"),
        (["alone/alone.pt"], r"model\.pt does not exist|model\.json"),
    ],
)
def test_what_cannot_be_averaged_is_refused(run: Path, files: list[str], sentence: str) -> None:
    torch.save({"weight": torch.zeros(3)}, run / "other.pt")
    (run / "alone").mkdir()
    torch.save(state(1.0), run / "alone" / "alone.pt")
    with pytest.raises(InputError, match=sentence):
        average(*(str(run / file) for file in files), output=str(run / "mean.pt"))
    assert not (run / "mean.pt").exists()
