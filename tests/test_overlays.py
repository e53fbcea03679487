"""Config files: what nothing takes is refused with the name that was probably meant; all of the bundle's own pass."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

import bundle.monai_registry  # noqa: F401  # as the configs do
from bundle.errors import InputError
from bundle.overlays import check_components, check_overlays
from bundle.overrides import check_command_line
from tests.workflows.conftest import CONFIGS

NETWORKS = sorted(f"networks/{file.name}" for file in (CONFIGS / "networks").glob("*.json"))
EXPERIMENTS = sorted(f"experiments/{file.name}" for file in (CONFIGS / "experiments").glob("*.json"))
RECIPE = ["simulated.json", "cpu.json", "weights.json"]
OVERLAYS = [
    [],
    ["cpu.json"],
    ["multi_gpu_train.json"],
    ["simulated.json"],
    RECIPE,
    [*RECIPE, "cuda.json"],
    [*RECIPE, "multi_gpu_train.json"],
    ["evaluate.json", "multi_gpu_evaluate.json"],
    *([one] for one in NETWORKS + EXPERIMENTS),
    *(
        run["configs"]
        for run in json.loads((CONFIGS / "experiments.json").read_text())["runs"].values()
        if "configs" in run
    ),
]
COMBINATIONS = [
    *(["train.json", *overlays] for overlays in OVERLAYS),
    *(["train.json", *overlays, "evaluate.json"] for overlays in OVERLAYS[:-1] if "evaluate.json" not in overlays),
    ["inference.json", "inference_trt.json"],
    *(["inference.json", *overlays] for overlays in ([], *([one] for one in NETWORKS + EXPERIMENTS))),
]


def run(*files: object, **overrides: object) -> None:
    """Check ``python -m monai.bundle run`` with these files; a file of the bundle is given by its name."""
    words = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    paths = [str(CONFIGS / str(file)) for file in files]
    check_command_line(["monai/bundle/__main__.py", "run", "--config_file", str(paths), *words])


@pytest.mark.parametrize("files", COMBINATIONS, ids="+".join)
def test_the_bundle_s_own_configs_pass(files: list[str]) -> None:
    run(*files)


def test_no_config_of_the_bundle_is_left_out() -> None:
    bundled = {str(file.relative_to(CONFIGS)) for file in CONFIGS.rglob("*.json")}
    no_configs = {"experiments.json", "metadata.json", "simulation_split.json"}
    assert {name for files in COMBINATIONS for name in files} == bundled - no_configs


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        (
            {"epoch": 3, "spacing": 2},
            "epoch is not a setting of the config, and nothing refers to it: did you mean epochs?",
        ),
        (
            {"epochs": 3, "spacing": 2},
            "spacing is not a setting of the config, and nothing refers to it: did you mean spacing_mm?",
        ),
        (
            {"+networkdef": {"features": [8]}},
            "networkdef is not a setting of the config, and nothing refers to it: did you mean network_def?",
        ),
        ({"xyz": ["$print(1)", 3]}, "xyz is not a setting of the config, and nothing refers to it."),
        ({"xyz": 3}, "xyz is not a setting of the config, and nothing refers to it."),
    ],
)
def test_a_setting_that_nothing_refers_to_is_refused(overlay: dict, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(overlay))
    with pytest.raises(InputError, match=f"^{re.escape(str(file))}: {re.escape(sentence)}$"):
        run("train.json", "cpu.json", file)


@pytest.mark.parametrize(
    ("overlay", "place", "sentence"),
    [
        ({"network_def::feature": [8]}, "network_def::feature", "bundle.networks.TSRLNet: did you mean features?"),
        (
            {"loss": {"_target_": "bundle.losses.TSRLLoss", "side_weigth": 2}},
            "loss::side_weigth",
            "bundle.losses.TSRLLoss: did you mean side_weight?",
        ),
        (
            {"loss": {"_target_": "TSRLLoss", "loss": {"_target_": "DiceLoss", "sigmiod": True}}},
            "loss::loss::sigmiod",
            "DiceLoss: did you mean sigmoid?",
        ),
        (
            {"+train::handlers": [{"_target_": "bundle.handlers.LossParts", "every": 2}]},
            "train::handlers::9::every",
            "bundle.handlers.LossParts: it takes none.",
        ),
    ],
)
def test_a_key_that_is_no_argument_of_its_component_is_refused(
    overlay: dict, place: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(overlay))
    with pytest.raises(InputError, match=f"^{re.escape(place)} is not an argument of {re.escape(sentence)}$"):
        run("train.json", file)


def test_a_component_of_the_command_line_is_checked_too() -> None:
    with pytest.raises(InputError, match=r"loss::side_weigth is not an argument of TSRLLoss: did you mean side_weight"):
        run("train.json", loss={"_target_": "TSRLLoss", "side_weigth": 2})


@pytest.mark.parametrize(
    "overlay",
    [
        {"my_weight": 2, "loss": {"_target_": "TSRLLoss", "side_weight": "$@my_weight / 2"}},
        {"my_loss": {"_target_": "TSRLLoss"}, "loss": "%my_loss"},
        {"my_section": ["$print(1)"], "run": "%my_section"},
        {"my_beginning": ["$print(1)", {"_target_": "builtins.dict"}], "my_end": []},
        {"_meta_": {"version": "1"}, "_desc_": "mine", "finalize": ["$print(1)"], "+imports": ["$import os"]},
        {"loss": {"_target_": "TSRLLoss", "_desc_": "ours", "_disabled_": False, "_mode_": "default"}},
        {"train::trainer::amp": True, "train::mine": 3},
    ],
)
def test_what_is_used_or_known_to_monai_is_accepted(overlay: dict, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(overlay))
    run("train.json", tmp_path / "mine.json")


def test_overrides_and_the_command_line_may_use_what_an_overlay_adds(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"mine": 3, "my_section": "$print(1)"}))
    run("train.json", tmp_path / "mine.json", epochs="@mine", run_id="my_section")


@pytest.mark.parametrize("target", ["nowhere.Nothing", "builtins.dict", "monai.data.DataLoader", "@other", 3])
def test_components_whose_arguments_cannot_be_known_are_left_to_monai(target: Any) -> None:
    check_components({"one": {"_target_": target, "anything": 3}})


def test_the_base_is_the_first_file() -> None:
    base = ConfigParser.load_config_file(CONFIGS / "inference.json")
    check_overlays({"base": {**base, "mine": 1}, "second": {"mine": 2}})
    with pytest.raises(InputError, match="second: mine is not a setting"):
        check_overlays({"base": base, "second": {"mine": 2}})
