"""The configs in MONAI Label: its options reach the components, its training continues from the shipped weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.errors import InputError, find_input_error
from bundle.handlers import SaveLast
from bundle.weights import read_settings
from tests.workflows.conftest import CONFIGS, FEATURES

OPTIONS = {"threshold": 0.4, "smallest_lesion_ml": 0.025, "registration": True, "tta_flips": False}


def after_request(**changed: object) -> ConfigParser:
    """Return the config after MONAI Label's BundleInferTask has replaced its options and parsed it again."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    parser.get_parsed_content("network_def")
    parser["displayable_configs"].update({**OPTIONS, **changed})
    parser.parse()
    return parser


# The options of inference


def test_the_options_are_those_of_the_config() -> None:
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    assert parser.get_parsed_content("displayable_configs") == OPTIONS


def test_by_default_heads_are_registered_and_lesions_below_three_voxels_of_2_mm_left_out() -> None:
    parser = after_request()
    steps = {type(step).__name__: step for step in parser.get_parsed_content("postprocessing").transforms}
    assert parser.get_parsed_content("preprocessing").settings["space"] == "mni"
    assert parser.get_parsed_content("inferer").tta_flips == [()]
    assert steps["LogitsToMaskd"].to_mask.threshold == 0.4
    assert steps["LogitsToMaskd"].to_mask.smallest_lesion_ml == 0.025


@pytest.mark.parametrize("tta_flips", [True, 1])  # a checkbox of 3D Slicer's has been sent as a number
def test_each_option_reaches_its_component(tta_flips: object) -> None:
    parser = after_request(threshold=0.9, smallest_lesion_ml=0.5, registration=False, tta_flips=tta_flips)
    steps = {type(step).__name__: step for step in parser.get_parsed_content("postprocessing").transforms}
    assert parser.get_parsed_content("preprocessing").settings["space"] == "native"
    assert parser.get_parsed_content("inferer").tta_flips == [(), (0,)]
    assert steps["LogitsToMaskd"].to_mask.threshold == 0.9
    assert steps["LogitsToMaskd"].to_mask.smallest_lesion_ml == 0.5


# Training


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path, small_weights: Path) -> Path:
    """A bundle's folder with the thin network's weights, in an app of MONAI Label."""
    (tmp_path / "models").mkdir()
    for suffix in (".pt", ".json"):
        shutil.copy(small_weights.with_suffix(suffix), tmp_path / "models")
    settings = tmp_path / "models" / "model.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "threshold": 0.3}))
    return tmp_path


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of the trainer, one for each time that one has ended."""
    epochs: list[int] = []
    save = SaveLast.__call__

    def counted(self: SaveLast, engine: Any) -> None:
        epochs.append(engine.state.epoch)
        save(self, engine)

    monkeypatch.setattr(SaveLast, "__call__", counted)
    return epochs


def fine_tune(root: Path, train: list[dict], val: list[dict] | None, run_id: str, **overrides: object) -> None:
    """Run a training as MONAI Label's BundleTrainTask does."""
    config = str(CONFIGS / "train.json")
    handlers = json.loads(Path(config).read_text())["train"]["handlers"]
    load = {"load_path": str(root / "models" / "model.pt"), "load_dict": {"model": "$@network"}, "strict": False}
    asked = {
        "bundle_root": str(root),
        "train#trainer#max_epochs": 2,
        "train#dataset#data": train,
        "device": "cpu",
        "train#handlers": [{"_target_": "CheckpointLoader", **load}, *handlers],
        **({} if val is None else {"validate#dataset#data": val}),
    }
    quick = {"network_def::features": list(FEATURES), "batch_size": 8, "samples_per_epoch": 16, "lesion_fraction": 0.5}
    workflow = ConfigWorkflow(config, logging_file=False, run_id=run_id, **asked, **quick, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


@pytest.fixture
def items(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Labelled volumes, inside MONAI Label; what configs change in ``sys`` is taken back."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "monailabel", ModuleType("monailabel"))
    listed = json.loads((cohort / "datalist.json").read_text())["training"]
    return [{key: str(cohort / file) for key, file in item.items()} for item in listed[:2]]


@pytest.mark.slow
@pytest.mark.parametrize("run_id", ["run", ""])  # 3D Slicer asks for "", which evaluates the whole config
@pytest.mark.parametrize("validated", [True, False])
def test_training_continues_from_the_weights_with_their_settings_and_replaces_them(
    run_id: str, validated: bool, root: Path, items: list[dict], saved: list[int]
) -> None:
    weights = root / "models" / "model.pt"
    before, settings = torch.load(weights, weights_only=True), read_settings(weights)
    assert (settings.spacing_mm, settings.threshold) == (2.0, 0.3)  # neither is the default of train.json
    fine_tune(root, items[:1], items[1:] if validated else [], run_id)
    after = torch.load(weights, weights_only=True)
    assert saved == [1, 2]
    kept = read_settings(weights)
    assert replace(kept, epoch=None, validation_dice=None) == settings
    assert kept.epoch == 2 if not validated else kept.epoch in (1, 2)
    assert (kept.validation_dice is not None) == validated
    assert after.keys() == before.keys()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before if name.endswith("weight"))
    # Adam moves a weight by at most about the learning rate in each of 4 steps; a network begun anew would be far off.
    assert 1e-5 < moved < 4 * 1e-4 * 1.5
    assert sorted(file.name for file in (root / "models").iterdir()) == ["model.json", "model.pt"]


@pytest.mark.usefixtures("items")
def test_volumes_of_the_validation_table_are_in_voxels_of_the_weights_settings(root: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.json"))
    parser.update({"bundle_root": str(root), "validate#handlers#0#iterations_per_epoch": 1})
    assert parser["spacing_mm"] == 1.0
    assert parser.get_parsed_content("validate::handlers::0").voxel_ml == pytest.approx(0.008)  # 2 mm


@pytest.mark.slow
def test_without_validation_cases_of_monai_label_there_is_no_validation(
    root: Path, items: list[dict], saved: list[int]
) -> None:
    fine_tune(root, items[:1], None, "run")
    assert saved == [1, 2]


def test_without_labels_a_sentence_says_so_and_the_weights_stay(root: Path, items: list[dict]) -> None:
    before = digest(root / "models" / "model.pt")
    with pytest.raises(RuntimeError) as failed:
        fine_tune(root, [], [], "run")
    told = find_input_error(failed.value)
    assert isinstance(told, InputError)
    assert str(told) == "There is no case to train on: the datalist is empty."
    assert digest(root / "models" / "model.pt") == before
