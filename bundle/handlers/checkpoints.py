"""Checkpoints that are written to another name and renamed, so that a killed run leaves no damaged file.

MONAI's ``CheckpointSaver`` writes in place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.networks import copy_model_state

from bundle.errors import InputError
from bundle.files import replacing
from bundle.weights import (
    WeightsSettings,
    missing_weights,
    unfit_weights,
    warn_of_other_settings,
    write_settings,
)

__all__ = ["LoadCheckpoint", "SaveBest", "SaveLast", "SaveWeights", "half_precision", "save_atomically"]

_log = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | Path) -> None:
    """Save with ``torch.save``, so that the file is complete or does not exist.

    Args:
        content: what to save.
        path: the file; its folder is made.
    """
    with replacing(path) as unfinished:
        torch.save(content, unfinished)


def half_precision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict with its floating point values as float16, which halves the file's size."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


class SaveLast:
    """Handler that saves everything that a resumed training needs, after each epoch of the trainer.

    Args:
        path: the checkpoint, replaced each time.
        save_dict: objects with ``state_dict()``, by name.
    """

    def __init__(self, path: str, save_dict: Mapping[str, Any]) -> None:
        self.path = path
        self.save_dict = dict(save_dict)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handlers whose effect is to be saved."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save."""
        if idist.get_rank() == 0:
            save_atomically({name: part.state_dict() for name, part in self.save_dict.items()}, self.path)


class SaveWeights:
    """Handler that saves a network's weights after each epoch in the place of the earlier ones.

    The epoch is logged and written beside the weights.

    Args:
        path: the weights, a plain state dict.
        network: the network.
        settings: written beside the weights, see :func:`bundle.weights.read_settings`.
        half: write floating point values as float16.
    """

    def __init__(self, path: str, network: torch.nn.Module, settings: WeightsSettings, half: bool = False) -> None:
        self.path = path
        self.network = network
        self.settings = settings
        self.half = half

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, or to an evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save."""
        self.save(engine.state.epoch)

    def save(self, epoch: int, validation_dice: float | None = None) -> None:
        """Save the weights of an epoch.

        Args:
            epoch: the trainer's epoch.
            validation_dice: the mean Dice of its validation; None if there was none.
        """
        if idist.get_rank() > 0:
            return
        write_settings(self.path, replace(self.settings, epoch=epoch, validation_dice=validation_dice))
        state = self.network.state_dict()
        save_atomically(half_precision(state) if self.half else state, self.path)
        result = "without validation" if validation_dice is None else f"validation Dice {validation_dice:.3f}"
        _log.info("%s: epoch %d, %s", self.path, epoch, result)


class SaveBest(SaveWeights):
    """Handler that saves a network's weights whenever an evaluator's key metric, the mean Dice, is the best so far.

    Its ``state_dict`` is the best value, so that a resumed training does not overwrite better weights.
    """

    best = float("-inf")

    def __call__(self, engine: Engine) -> None:
        """Save if the epoch is the best; an evaluator's epoch is that of its trainer."""
        value = float(engine.state.metrics[engine.state.key_metric_name])
        if value > self.best:
            self.best = value
            self.save(engine.state.epoch, value)

    def state_dict(self) -> dict[str, float]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Set the best value."""
        self.best = state_dict["best"]


class LoadCheckpoint(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` that raises :class:`InputError` and keeps the epoch length of the present data.

    Args:
        load_path: a checkpoint of :class:`SaveLast`, or weights alone if ``load_dict`` has one entry.
        load_dict: objects that the states are loaded into, by name.
        device: device of the tensors.
        strict: False loads the weights of another network into ``"model"`` where names and shapes are equal, and logs
            the parts for which there are none.
        settings: how images are prepared here; a warning is logged if it is not how those of the weights were.

    Raises:
        InputError: when the file does not exist, is not a checkpoint, or is of another network; if ``strict`` is False,
            when no part of it fits.
    """

    def __init__(
        self,
        load_path: str,
        load_dict: dict,
        device: str | torch.device = "cpu",
        strict: bool = True,
        settings: WeightsSettings | None = None,
    ) -> None:
        if not Path(load_path).is_file():
            raise missing_weights(load_path)
        super().__init__(load_path, load_dict, map_location=device)
        self.takes_all = strict
        self.settings = settings

    def __call__(self, engine: Engine) -> None:
        """Load the file."""
        if self.settings is not None:
            warn_of_other_settings(self.load_path, self.settings)
        try:
            if self.takes_all:
                self._load_all(engine)
            else:
                self._load_what_fits(engine)
        except InputError:
            raise
        except Exception as error:  # torch, pickle and zip errors differ from file to file
            raise unfit_weights(self.load_path, error) from error

    def _load_all(self, engine: Engine) -> None:
        """Load everything, and keep the data loader's epoch length, not that of the checkpoint."""
        epoch_length = engine.state.epoch_length
        super().__call__(engine)
        if epoch_length is not None and epoch_length != engine.state.epoch_length:
            engine.state.epoch_length = epoch_length
            engine.state.iteration = engine.state.epoch * epoch_length

    def _load_what_fits(self, engine: Engine) -> None:
        """Load the parts that fit; MONAI's ``strict_shape=False`` looks one level too high and loads nothing."""
        state = torch.load(self.load_path, map_location=self.map_location, weights_only=True)
        _, taken, left = copy_model_state(self.load_dict["model"], state.get("model", state))
        if not taken:
            raise InputError(f"{self.load_path} has no weights that fit this network.")
        engine.logger.info("%s: %d parts loaded; not loaded: %s", self.load_path, len(taken), ", ".join(left) or "none")
