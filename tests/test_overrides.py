"""Overrides of configs: what no config has is refused with the name that was probably meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.overrides import check_command_line, check_overrides, check_value

CONFIG: dict[str, Any] = {
    "epochs": 3,
    "finetune_strict": True,
    "network_def": {"_target_": "bundle.networks.TSRLNet"},
    "net": {"_target_": "BasicUNet", "spatial_dims": 2},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 2},
    "any": {"_target_": "builtins.dict"},
    "train": {"steps": [{"_target_": "Flipd", "keys": "pred"}]},
}


@pytest.mark.parametrize(
    "name",
    [
        "epochs",
        "network_def",
        "network_def::features",
        "network_def#dropout",
        "network_def::_target_",
        "network_def::_disabled_",
        "net::out_channels",
        "scheduler::gamma",
        "any::thing",
        "train::steps",
        "train::steps::0::spatial_axis",
    ],
)
def test_settings_of_a_config_or_a_component_are_accepted(name: str) -> None:
    check_overrides([name], CONFIG)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("epoch", "--epoch is not a setting of the config: did you mean --epochs?"),
        ("finetune_partly", "--finetune_partly is not a setting of the config: did you mean --finetune_strict?"),
        (
            "network_def::featurs",
            "--network_def::featurs is not a setting of network_def, bundle.networks.TSRLNet: "
            "did you mean --network_def::features?",
        ),
        (
            "net#out_chanels",
            "--net::out_chanels is not a setting of net, BasicUNet: did you mean --net::out_channels?",
        ),
        (
            "scheduler::gama",
            "--scheduler::gama is not a setting of scheduler, torch.optim.lr_scheduler.StepLR: "
            "did you mean --scheduler::gamma?",
        ),
        (
            "train::steps::0::spatial_axes",
            "--train::steps::0::spatial_axes is not a setting of train::steps::0, Flipd: "
            "did you mean --train::steps::0::spatial_axis?",
        ),
        ("train::xyz", "--train::xyz is not a setting of train: it has steps."),
    ],
)
def test_a_setting_of_neither_is_refused_with_the_one_that_was_meant(name: str, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        check_overrides(["epochs", name], CONFIG)
    assert str(refused.value) == sentence


def monai_bundle(*words: str) -> list[str]:
    """Return ``sys.argv`` of ``python -m monai.bundle``."""
    return ["/site-packages/monai/bundle/__main__.py", *words]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two configs, of which the second adds a setting."""
    base = {"epochs": 3, "shift": 2, "training": ["$@epochs"]}
    overlay = {"warmup_steps": 5, "+training": ["$@warmup_steps"]}
    for name, content in (("base", base), ("overlay", overlay)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / f"{name}.json") for name in ("base", "overlay")]


@pytest.mark.parametrize("spelling", [["--warmup_step", "1"], ["--warmup_step=1"], ["-warmup_step", "1"]])
def test_overrides_are_read_as_fire_reads_them(spelling: list[str], files: list[str]) -> None:
    words = ["run", "training", "--config_file", str(files), "--shift", "-1"]
    check_command_line(monai_bundle(*words, "--warmup-steps", "1", "--", "--trace"))
    with pytest.raises(InputError, match="did you mean --warmup_steps"):
        check_command_line(monai_bundle(*words, *spelling))
    with pytest.raises(InputError, match="--warmup_steps is not a setting of the config: it has epochs"):
        check_command_line(monai_bundle("run", "training", f"--config_file={files[0]}", "--warmup_steps", "1"))


def test_monai_s_own_options_are_none_of_the_config_s(files: list[str], tmp_path: Path) -> None:
    words = ["run", "--run_id", "training", "--config_file", files[0], "--meta_file", "metadata.json"]
    check_command_line(monai_bundle(*words, "--logging_file", "logging.conf", "--init_id", "a", "--final_id", "b"))
    check_command_line(monai_bundle(*words, "--tracking", "mlflow", "--tracking_uri", "runs", "--run_name", "first"))
    with pytest.raises(InputError, match="--tracking_uri is not a setting"):
        check_command_line(monai_bundle(*words, "--tracking_uri", "runs"))


def test_overrides_in_a_file_of_arguments_are_checked_too(files: list[str], tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"config_file": files, "epochs": 1, "warmup": 2}))
    with pytest.raises(InputError, match=r"--warmup is not a setting of the config: did you mean --warmup_steps\?"):
        check_command_line(monai_bundle("run", "training", "--args_file", str(arguments)))


@pytest.mark.parametrize(
    "text", ["2024", "2024.10", "1e5", "0x10", "1_000", "True", "-1", "run#2", "None", "Smith,John", "(a)", "'x'"]
)
@pytest.mark.parametrize("name", ["dataset_dir", "output_dir", "datalist", "ckpt_path"])
def test_a_path_that_monai_reads_as_something_else_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({name: "data"}))
    words = ["run", "--config_file", str(tmp_path / "config.json")]
    check_command_line(monai_bundle(*words, f"--{name}", f"./{text}"))
    with pytest.raises(InputError, match=rf"--{name} {re.escape(text)} is not read as a path, but as .+: write \./"):
        check_command_line(monai_bundle(*words, f"--{name}={text}"))


def test_a_misspelt_option_of_monai_is_refused(files: list[str]) -> None:
    words = ["run", "training", "--config_file", files[0], "--logging_fil", "a.conf"]
    with pytest.raises(
        InputError, match=r"^--logging_fil is not a setting of the config: did you mean --logging_file\?$"
    ):
        check_command_line(monai_bundle(*words))


DEFAULTS: dict[str, list[Any]] = {
    "resume": [False],
    "displayable_configs::registration": [True],
    "epochs": [150, 9],
    "first_volumes": [None],
    "learning_rate": [0.001],
    "threshold": ["$@trained_with.threshold"],
    "lesion_fraction": [None, 0.65],
    "net::strides": [2],
    "device": ["$torch.device('cpu')"],
    "space": ["mni"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resume", True),
        ("resume", "$@epochs > 3"),
        ("epochs", 1),
        ("first_volumes", None),
        ("learning_rate", 0),
        ("learning_rate", "@lr"),
        ("threshold", 0.5),
        ("threshold", 1),
        ("lesion_fraction", None),
        ("net::strides", [2, 2]),
        ("net::strides", None),
        ("device", "cuda:1"),
        ("space", "native"),
        ("space", 3),
    ],
)
def test_a_value_that_the_setting_takes_is_accepted(name: str, value: object) -> None:
    check_value(name, value, DEFAULTS[name])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("resume", "Flase", "--resume must be True or False, not 'Flase'."),
        ("resume", "false", "--resume must be True or False, not 'false'."),
        ("resume", 1, "--resume must be True or False, not 1."),
        ("resume", None, "--resume must be True or False, not None."),
        (
            "displayable_configs#registration",
            "Flase",
            "--displayable_configs#registration must be True or False, not 'Flase'.",
        ),
        ("epochs", "three", "--epochs must be a whole number of at least 1, not 'three'."),
        ("epochs", -1, "--epochs must be a whole number of at least 1, not -1."),
        ("epochs", 2.5, "--epochs must be a whole number of at least 1, not 2.5."),
        ("epochs", True, "--epochs must be a whole number of at least 1, not True."),
        ("first_volumes", "many", "--first_volumes must be a whole number of at least 1, not 'many'."),
        ("learning_rate", "fast", "--learning_rate must be a number, not 'fast'."),
        ("learning_rate", float("inf"), "--learning_rate must be a number, not inf."),
        ("learning_rate", [0.1], "--learning_rate must be a number, not [0.1]."),
        ("threshold", 3, "--threshold must be a number from 0 to 1, not 3."),
        ("lesion_fraction", -0.1, "--lesion_fraction must be a number from 0 to 1, not -0.1."),
        ("net::strides", "two", "--net::strides must be a number, not 'two'."),
        ("device", "cude", "--device must be a device of torch, such as cpu or cuda:0, not 'cude'."),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(name: str, value: object, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        check_value(name, value, DEFAULTS[name.replace("#", "::")])


def test_values_of_the_command_line_are_compared_with_every_config_file(tmp_path: Path) -> None:
    files = []
    for number, content in enumerate(({"size": 2, "amp": False, "run": []}, {"size": "$4", "amp": "$True"})):
        files.append(str(tmp_path / f"{number}.json"))
        Path(files[-1]).write_text(json.dumps(content))
    words = monai_bundle("run", "--config_file", str(files))
    check_command_line([*words, "--amp", "--size", "3"])  # a name alone is True
    with pytest.raises(InputError, match=r"--size must be a number, not 'big'\."):
        check_command_line([*words, "--size", "big"])
    with pytest.raises(InputError, match=r"--amp must be True or False, not 'Tru'\."):
        check_command_line([*words, "--amp=Tru"])


def test_other_programs_are_left_alone(files: list[str]) -> None:
    check_command_line(["scripts/segment.py", "--config_file", files[0], "--epoch", "3"])
