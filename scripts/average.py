"""The mean of weights, as float16: ``python -m scripts.average A.pt [B.pt ...] --output C.pt``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.errors import InputError, explain
from scripts.command import run_command

if TYPE_CHECKING:
    import torch

    from bundle.weights import WeightsSettings

__all__ = ["average"]


def average(*files: str, output: str) -> None:
    """Write the mean of weights as float16, and beside it how images are prepared for them, as ``.json``.

    Args:
        files: weights, or checkpoints of trainings, of which the average of weights (``ema``) is taken, or the weights
            where there is none. A single file is only converted to float16.
        output: the file to write. Its settings are those beside the first file or, for a checkpoint, beside the
            ``model.pt`` in its folder.
    """
    import torch

    from bundle.handlers import half_precision, save_atomically
    from bundle.weights import write_settings

    if not files:
        raise InputError("Weights or checkpoints to average are expected.")
    states = [_weights(file) for file in files]
    for file, state in zip(files, states, strict=True):
        if {name: value.shape for name, value in state.items()} != {n: v.shape for n, v in states[0].items()}:
            raise InputError(f"{file} cannot be averaged with {files[0]}: it is of another network.")
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in states[-1].items()
    }
    write_settings(output, replace(_settings(files[0]), epoch=None, validation_dice=None))
    save_atomically(half_precision(mean), output)
    print(output)


def _weights(file: str) -> dict[str, torch.Tensor]:
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zip errors differ from file to file
        raise InputError(explain(file, error)) from error
    weights: dict[str, torch.Tensor] = state.get("ema", state.get("model", state))
    return weights


def _settings(file: str) -> WeightsSettings:
    from bundle.weights import read_settings

    own = Path(file).with_suffix(".json")
    return read_settings(str(own if own.exists() else Path(file).with_name("model.pt")))


if __name__ == "__main__":
    run_command(average)
