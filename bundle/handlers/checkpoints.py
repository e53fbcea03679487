"""Checkpoints that a killed run cannot spoil: each is written aside and renamed.

MONAI's ``CheckpointSaver`` writes in place, so a kill while it writes leaves half a file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.networks import copy_model_state

from bundle.errors import InputError
from bundle.files import replacing, write_atomically
from bundle.transforms.slices import Plane

__all__ = [
    "LoadCheckpoint",
    "SaveBest",
    "SaveLast",
    "SaveWeights",
    "half_precision",
    "load_further",
    "read_settings",
    "save_atomically",
]

_PREPARATION = {"box", "offsets", "slice_size", "space", "spacing_mm"}
_MISSING = "{} does not exist: weights or a checkpoint of an earlier run are expected."


def save_atomically(content: Any, path: str | Path) -> None:
    """``torch.save`` to a file that is whole or not there.

    Args:
        content: what to save.
        path: the file; its folder is made.
    """
    with replacing(path) as unfinished:
        torch.save(content, unfinished)


def half_precision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with floating point values as float16, half the size of a file; others stay."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def read_settings(weights: str) -> dict[str, Any]:
    """How a network is used: how the images were prepared that it was trained on, and its threshold.

    Args:
        weights: the weights of :class:`SaveWeights`; the settings are beside them, ``model.json`` for ``model.pt``.

    Returns:
        ``space``, ``spacing_mm``, ``box``, ``slice_size``, ``offsets``, ``plane``, axial where there is none, and
        ``threshold``, the probability from which a voxel is lesion, 0.5 where there is none.

    Raises:
        InputError: when there are none, or some are missing.
    """
    file = Path(weights).with_suffix(".json")
    unusable = f"{weights} cannot be used: {file}, which says how its images were prepared,"
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError) as error:  # neither text nor JSON is a ValueError
        if not Path(weights).exists():
            raise InputError(_MISSING.format(weights)) from error
        raise InputError(f"{unusable} is missing or damaged.") from error
    if not isinstance(settings, dict) or not settings.keys() >= _PREPARATION:
        raise InputError(f"{unusable} must hold {', '.join(sorted(_PREPARATION))}.")
    return {"plane": "axial", "threshold": 0.5, **settings}


def _is_first_process() -> bool:
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


class SaveLast:
    """Saves the state of everything that a resumed training needs, after each epoch of the trainer.

    Args:
        path: the checkpoint, replaced each time.
        save_dict: objects with ``state_dict()``, by name.
    """

    def __init__(self, path: str, save_dict: Mapping[str, Any]) -> None:
        self.path = path
        self.save_dict = dict(save_dict)

    def attach(self, engine: Engine) -> None:
        """Attaches to a trainer, behind the handlers whose effect is to be saved."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Saves."""
        if _is_first_process():
            save_atomically({name: part.state_dict() for name, part in self.save_dict.items()}, self.path)


class SaveWeights:
    """Saves a network's weights after each epoch, so that those of the last one are kept.

    Args:
        path: the weights, a plain state dict.
        network: whose weights.
        settings: how the images were prepared and the threshold, written beside the weights for :func:`read_settings`.
        half: write floating point values as float16.
    """

    def __init__(self, path: str, network: torch.nn.Module, settings: Mapping[str, Any], half: bool = False) -> None:
        self.path = path
        self.network = network
        self.settings = dict(settings)
        self.half = half

    def attach(self, engine: Engine) -> None:
        """Attaches to a trainer, or to the evaluator whose metric decides."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Saves."""
        if _is_first_process():
            write_atomically(json.dumps(self.settings, indent=4) + "\n", Path(self.path).with_suffix(".json"))
            state = self.network.state_dict()
            save_atomically(half_precision(state) if self.half else state, self.path)


class SaveBest(SaveWeights):
    """Saves a network's weights whenever the key metric of an evaluator, which it attaches to, is the best so far.

    Its own ``state_dict`` is the best value, so that a resumed training does not overwrite better weights.
    """

    best = float("-inf")

    def __call__(self, engine: Engine) -> None:
        """Saves when the epoch just ended is the best."""
        value = float(engine.state.metrics[engine.state.key_metric_name])
        if value > self.best:
            self.best = value
            super().__call__(engine)

    def state_dict(self) -> dict[str, float]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Takes the best value over."""
        self.best = state_dict["best"]


class LoadCheckpoint(CheckpointLoader):
    """MONAI's ``CheckpointLoader``, with a sentence where it has a trace.

    Args:
        load_path: a checkpoint of :class:`SaveLast`, or weights alone when ``load_dict`` has one entry.
        load_dict: what takes the state over, by name.
        device: where the tensors go.
        partly: take weights of another network, as far as their names and shapes are the ``"model"``'s; which of its
            parts stay new is logged.

    Raises:
        InputError: when the file does not exist, is no checkpoint, or is one of another network, of which nothing can
            be taken where ``partly`` is set.
    """

    def __init__(
        self, load_path: str, load_dict: dict, device: str | torch.device = "cpu", partly: bool = False
    ) -> None:
        if not Path(load_path).is_file():
            raise InputError(_MISSING.format(load_path))
        super().__init__(load_path, load_dict, map_location=device)
        self.partly = partly

    def __call__(self, engine: Engine) -> None:
        """Loads."""
        try:
            if self.partly:
                self._load_partly(engine)
            else:
                super().__call__(engine)
        except InputError:
            raise
        except Exception as error:  # torch, pickle and zip errors differ from file to file
            raise _unfit(self.load_path, error) from error

    def _load_partly(self, engine: Engine) -> None:
        """MONAI's own ``strict_shape=False`` looks for the weights' names one level too high and takes nothing."""
        state = torch.load(self.load_path, map_location=self.map_location, weights_only=True)
        _, taken, left = copy_model_state(self.load_dict["model"], state.get("model", state))
        if not taken:
            raise InputError(f"{self.load_path} holds nothing that fits this network.")
        engine.logger.info("%s: %d parts taken; new are %s", self.load_path, len(taken), ", ".join(left) or "none")


def _unfit(path: str, error: Exception) -> InputError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"{path} could not be loaded into this network: {reason}")


def load_further(
    network: torch.nn.Module, weights: Sequence[str], settings: Mapping[str, Any]
) -> list[tuple[Plane, torch.nn.Module]]:
    """Networks to average with another: of other planes, or trained from another seed.

    Args:
        network: the other one; copies of it take the weights.
        weights: of each, as :class:`SaveWeights` writes them.
        settings: how the other one's images are prepared, of :func:`read_settings`.

    Returns:
        the plane of each and the network, in ``eval()``.

    Raises:
        InputError: when weights are not there, are of another network, or their images were prepared otherwise.
    """
    further = []
    for path in weights:
        own = read_settings(path)
        differing = sorted(key for key in _PREPARATION if own[key] != settings[key])
        if differing:
            told = ", ".join(f"{key} {own[key]} and not {settings[key]}" for key in differing)
            raise InputError(f"{path} cannot be averaged with the other weights: it was trained with {told}.")
        one = copy.deepcopy(network).eval()
        try:
            one.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch, pickle and zip errors differ from file to file
            raise _unfit(path, error) from error
        further.append((own["plane"], one))
    return further
