"""MONAI Label is known by what it imports, or by the config that it writes for several GPUs."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from bundle.monai_label import in_monai_label


def test_a_command_is_not_in_it() -> None:
    assert not in_monai_label()


def test_its_server_and_its_tasks_have_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monailabel", ModuleType("monailabel"))
    assert in_monai_label()


def test_its_processes_for_several_gpus_read_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = "['app/model/b/configs/monailabel_train.json','app/model/b/configs/multi_gpu_train.json']"
    monkeypatch.setattr(sys, "argv", ["monai/bundle/__main__.py", "run", "run", "--config_file", configs])
    assert in_monai_label()
