"""Trainings and evaluations as processes of their own, which continue where they were stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.files import bundle_root, write_json

__all__ = ["MODELS", "config_files", "is_trained", "keep_plan", "read_config", "run", "train_settings"]

MODELS = Path(bundle_root()) / "models"
_CONFIGS = Path(bundle_root()) / "configs"


def config_files(names: Sequence[str]) -> list[str]:
    """Return the files of configs in this bundle, such as ``networks/agmr_net.json``; other names are paths already."""
    return [str(_CONFIGS / name if (_CONFIGS / name).exists() else name) for name in names]


def read_config(name: str) -> dict[str, Any]:
    """Return the content of one of the bundle's JSON configs."""
    return json.loads((_CONFIGS / name).read_text(encoding="utf-8"))


def train_settings() -> set[str]:
    """Return the names of the settings of configs/train.json, and of configs/cpu.json over it."""
    return {*read_config("train.json"), *read_config("cpu.json")}


def run(job: str, title: str, configs: Sequence[str], **options: object) -> None:
    """Run ``python -m monai.bundle run JOB``.

    Args:
        job: of the configs: ``training`` or ``evaluating``.
        title: the name of the run in the error.
        configs: from the base to the last overlay, as :func:`config_files` takes them.
        options: further settings.

    Raises:
        InputError: when it ends with another exit code than 0.
    """
    words = [sys.executable, "-m", "monai.bundle", "run", job, "--config_file", str(config_files(configs))]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    if code := subprocess.run(words, check=False).returncode:
        raise InputError(f"{job} {title} ended with exit code {code}: the same command continues from there.")


def is_trained(checkpoint: Path, epochs: int) -> bool:
    """Return whether a training has written its last epoch.

    Args:
        checkpoint: its ``last.pt``.
        epochs: how many it should have.
    """
    import torch

    if not checkpoint.exists():
        return False
    trainer = torch.load(checkpoint, map_location="cpu", weights_only=True)["trainer"]
    return bool(trainer["iteration"] >= epochs * trainer["epoch_length"])


def keep_plan(file: Path, plan: dict[str, Any]) -> None:
    """Write what was asked for, or check that it is what the file says.

    Raises:
        InputError: when the folder was begun with another plan.
    """
    plan = json.loads(json.dumps(plan))  # as the file has it: no tuples
    if file.exists() and (begun := json.loads(file.read_text())) != plan:
        changed = ", ".join(sorted(key for key in plan if begun.get(key) != plan[key]))
        raise InputError(
            f"{file.parent} was begun with other {changed}: the networks must have one budget; clear it first."
        )
    write_json(plan, file)
