"""MONAI Label is known by what it imports, or by the config that it writes for several GPUs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from bundle.monai_label import StartingPoint, in_monai_label, starting_point
from bundle.weights import WeightsSettings, write_settings


def test_a_command_is_not_in_it() -> None:
    assert not in_monai_label()


def test_its_server_and_its_tasks_have_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monailabel", ModuleType("monailabel"))
    assert in_monai_label()


def test_its_processes_for_several_gpus_read_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = "['app/model/b/configs/monailabel_train.json','app/model/b/configs/multi_gpu_train.json']"
    monkeypatch.setattr(sys, "argv", ["monai/bundle/__main__.py", "run", "run", "--config_file", configs])
    assert in_monai_label()


SETTINGS = WeightsSettings(space="native", spacing_mm=1.0, box="brain", box_mm=192, offsets=(-2, -1, 0, 1))


@pytest.fixture
def shipped(tmp_path: Path) -> str:
    """Return shipped weights that were trained with other settings."""
    write_settings(tmp_path / "shipped.pt", replace(SETTINGS, spacing_mm=2.0, plane="coronal"))
    return str(tmp_path / "shipped.pt")


def test_a_training_starts_with_the_given_settings(shipped: str) -> None:
    assert starting_point(SETTINGS, 0.002, "out/model.pt", shipped) == (SETTINGS, 0.002, "out/model.pt")


def test_in_monai_label_it_continues_from_the_shipped_weights_with_a_lower_learning_rate(
    shipped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "monailabel", ModuleType("monailabel"))
    assert starting_point(SETTINGS, 0.001, "out/model.pt", shipped) == StartingPoint(
        replace(SETTINGS, spacing_mm=2.0, plane="coronal"), 0.0001, shipped
    )
