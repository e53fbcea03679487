"""Trainings and evaluations as processes of their own, which go on where they were stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bundle.errors import InputError
from bundle.files import bundle_root, write_json

__all__ = ["config_files", "is_trained", "keep_plan", "run", "train_settings"]


def config_files(names: Sequence[str]) -> list[str]:
    """The files of configs in this bundle, such as ``networks/agmr_net.json``; others are paths already."""
    folder = Path(bundle_root()) / "configs"
    return [str(folder / name if (folder / name).exists() else name) for name in names]


def train_settings() -> set[str]:
    """Return the names of the settings of configs/train.json."""
    return set(json.loads((Path(bundle_root()) / "configs" / "train.json").read_text(encoding="utf-8")))


def run(job: str, title: str, configs: Sequence[str], **options: object) -> None:
    """``python -m monai.bundle run JOB``.

    Args:
        job: of the configs: ``training`` or ``evaluating``.
        title: what it is called where it fails.
        configs: from the base to the last overlay, as :func:`config_files` takes them.
        options: what is set beside them.

    Raises:
        InputError: when it ends with another exit code than 0.
    """
    words = [sys.executable, "-m", "monai.bundle", "run", job, "--config_file", str(config_files(configs))]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    code = subprocess.run(words, check=False).returncode
    if code:
        raise InputError(f"{job} {title} ended with exit code {code}: the same command goes on from there.")


def is_trained(checkpoint: Path, epochs: int) -> bool:
    """Whether a training has written its last epoch.

    Args:
        checkpoint: its ``last.pt``.
        epochs: that it is meant to have.
    """
    if not checkpoint.exists():
        return False
    trainer = torch.load(checkpoint, map_location="cpu", weights_only=True)["trainer"]
    return bool(trainer["iteration"] >= epochs * trainer["epoch_length"])


def keep_plan(file: Path, plan: dict[str, Any]) -> None:
    """Writes what was asked for, or checks that it is what the file says.

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
