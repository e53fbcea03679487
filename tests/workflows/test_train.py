"""``run training``: what it prints and writes, and what a kill leaves."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from bundle.weights import read_settings
from tests.workflows.conftest import COARSE, ROOT, Run, command

OVERRIDES = COARSE | {
    "val_fraction": 0.25,
    "val_interval": 4,
    "batch_size": 4,
    "samples_per_epoch": 48,
    "lesion_fraction": 0.7,
    "learning_rate": 0.003,
}

STEPS = 12
"""Iterations of an epoch."""


def losses(log: str) -> dict[int, float]:
    """Mean loss by epoch, from the console."""
    return {int(epoch): float(loss) for epoch, loss in re.findall(r"Epoch\[(\d+)\] Metrics -- loss: ([\d.]+)", log)}


@pytest.fixture(scope="module")
def uninterrupted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Four epochs from the repository's root: the output folder and the console."""
    output = tmp_path_factory.mktemp("train")
    words = command("training", "train.json", dataset_dir=cohort, output_dir=output, epochs=4, **OVERRIDES)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return output, done.stdout + done.stderr


def test_the_console_shows_loss_parts_validation_and_a_bar(uninterrupted: tuple[Path, str]) -> None:
    _, log = uninterrupted
    assert re.search(r"Epoch\[1\] Metrics -- loss: [\d.]+ loss_final: [\d.]+ loss_patch: [\d.]+ loss_side: [\d.]+", log)
    assert re.search(r"Epoch\[4\] Metrics -- .*val_dice: [\d.]+", log)
    assert "training [4/4]" in log


def test_the_console_and_the_settings_say_which_epoch_the_weights_are_of(uninterrupted: tuple[Path, str]) -> None:
    output, log = uninterrupted
    settings = read_settings(output / "model.pt")
    assert settings.epoch == 4
    assert f"{output / 'model.pt'}: epoch 4, validation Dice {settings.validation_dice:.3f}" in log
    assert re.findall(r"Key metric: (\w+) best value", log) == ["val_dice"]  # none is chosen by the training's Dice
    (dice,) = re.findall(r"Epoch\[4\] Metrics -- .*val_dice: ([\d.]+)", log)
    assert settings.validation_dice == pytest.approx(float(dice), abs=1e-4)


def test_the_loss_falls(uninterrupted: tuple[Path, str]) -> None:
    by_epoch = losses(uninterrupted[1])
    assert list(by_epoch) == [1, 2, 3, 4]
    assert by_epoch[4] < 0.95 * by_epoch[1]


def test_checkpoints_settings_and_tensorboard_files_are_kept(uninterrupted: tuple[Path, str]) -> None:
    output, _ = uninterrupted
    last = torch.load(output / "last.pt", weights_only=True)
    assert set(last) == {"model", "optimizer", "lr_scheduler", "best", "trainer"}
    assert last["trainer"]["iteration"] == 4 * STEPS
    assert last["lr_scheduler"]["_last_lr"][0] == pytest.approx(0.003 * 0.96**4)
    best = torch.load(output / "model.pt", weights_only=True)
    assert best.keys() == last["model"].keys()
    assert all(torch.equal(value, last["model"][name]) for name, value in best.items())  # validated in epoch 4 only
    assert (output / "model.json").read_text().count('"spacing_mm": 2.0') == 1
    assert list(output.glob("events.out.tfevents.*"))
    assert not [file.name for file in output.iterdir() if file.name.startswith(".")]


@pytest.mark.slow
def test_after_kill_9_the_epochs_and_the_loss_go_on(
    uninterrupted: tuple[Path, str], cohort: Path, tmp_path: Path, run: Run
) -> None:
    settings = {"dataset_dir": cohort, "output_dir": tmp_path / "out", "epochs": 4, **OVERRIDES}
    checkpoint = tmp_path / "out" / "last.pt"
    with subprocess.Popen(
        command("training", "train.json", **settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    done_epochs = torch.load(checkpoint, weights_only=True)["trainer"]["iteration"] // STEPS
    assert 1 <= done_epochs < 4

    resumed = run("training", "train.json", resume=True, **settings)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    by_epoch, reference = losses(resumed.stdout + resumed.stderr), losses(uninterrupted[1])
    assert list(by_epoch) == list(range(done_epochs + 1, 5))
    # The order of the slices is the same; dropout is drawn anew.
    for epoch, loss in by_epoch.items():
        assert loss == pytest.approx(reference[epoch], rel=0.05)
    assert torch.load(checkpoint, weights_only=True)["trainer"]["iteration"] == 4 * STEPS


@pytest.mark.slow
def test_finetuning_starts_from_the_weights(
    uninterrupted: tuple[Path, str], cohort: Path, tmp_path: Path, run: Run
) -> None:
    output, log = uninterrupted
    settings = OVERRIDES | {"learning_rate": 0.0}
    done = run(
        None, "train.json", dataset_dir=cohort, output_dir=tmp_path, epochs=1, finetune=output / "model.pt", **settings
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(done.stdout + done.stderr)[1] < 0.95 * losses(log)[1]


@pytest.mark.slow
def test_early_stopping_ends_a_training_that_does_not_improve(cohort: Path, tmp_path: Path, run: Run) -> None:
    settings = OVERRIDES | {"val_interval": 1, "samples_per_epoch": 16, "learning_rate": 0.0, "early_stopping": 1}
    # Batch statistics alone still change the network a little: a threshold that nothing reaches keeps the DSC at 0.
    settings["validate::postprocessing::transforms::1::threshold"] = 1.1
    done = run("training", "train.json", dataset_dir=cohort, output_dir=tmp_path, epochs=6, **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(losses(done.stdout + done.stderr)) == [1, 2]


@pytest.mark.parametrize(
    ("run_id", "configs", "override", "sentence"),
    [
        ("training", ["train.json"], {"epoch": 3}, "--epoch is not a setting of the config: did you mean --epochs?"),
        (
            "training",
            ["train.json", "networks/agmr_net.json", "cpu.json"],
            {"network_def::featurs": "[8,16,16,32,32]"},
            "--network_def::featurs is not a setting of network_def, bundle.networks.AGMRNet: "
            "did you mean --network_def::features?",
        ),
        (
            "training",
            ["train.json"],
            {"train#trainer#max_epoch": 3},
            "--train::trainer::max_epoch is not a setting of train::trainer, SupervisedTrainer: "
            "did you mean --train::trainer::max_epochs?",
        ),
        (
            "training",
            ["train.json"],
            {"slice_size": 96},
            "--slice_size is not a setting of the config: did you mean --box_mm?",
        ),
        (
            None,
            ["train.json", "evaluate.json"],
            {"save_mask": True},
            "--save_mask is not a setting of the config: did you mean --save_masks?",
        ),
        (
            "inference",
            ["inference.json"],
            {"thresold": 0.3},
            "--thresold is not a setting of the config: did you mean --threshold?",
        ),
        ("inference", ["inference.json"], {"threshold": 3}, "--threshold must be a number from 0 to 1, not 3."),
    ],
)
def test_an_override_that_no_config_has_is_refused_before_anything_runs(
    run_id: str | None, configs: list[str], override: dict, sentence: str, cohort: Path, tmp_path: Path, run: Run
) -> None:
    done = run(run_id, *configs, dataset_dir=cohort, output_dir=tmp_path / "out", **override)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == [f"Error: {sentence}"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"resume": True}, r"last\.pt does not exist: weights or a checkpoint of an earlier run are expected"),
        ({"dataset_dir": "nowhere"}, r"nowhere does not exist: a datalist in JSON or a folder with images/ and"),
    ],
)
def test_bad_input_ends_in_one_sentence(overrides: dict, sentence: str, cohort: Path, tmp_path: Path, run: Run) -> None:
    settings = {"dataset_dir": cohort, "output_dir": tmp_path, "epochs": 1, **OVERRIDES, **overrides}
    done = run("training", "train.json", **settings)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(rf"^Error: .*{sentence}", done.stderr, re.MULTILINE)
