"""Checkpoints that a killed run cannot spoil: each is written aside and renamed.

MONAI's ``CheckpointSaver`` writes in place, so a kill while it writes leaves half a file.
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
        """Attaches to a trainer, after the handlers whose effect is to be saved."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Saves."""
        if idist.get_rank() == 0:
            save_atomically({name: part.state_dict() for name, part in self.save_dict.items()}, self.path)


class SaveWeights:
    """Handler that saves a network's weights after each epoch, so that those of the last one are kept.

    The log says which epoch the file is of.

    Args:
        path: the weights, a plain state dict.
        network: whose weights.
        settings: written beside the weights with the epoch, see :func:`bundle.weights.read_settings`.
        half: write floating point values as float16.
    """

    def __init__(self, path: str, network: torch.nn.Module, settings: WeightsSettings, half: bool = False) -> None:
        self.path = path
        self.network = network
        self.settings = settings
        self.half = half

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, or to the evaluator whose metric decides."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save."""
        self.save(engine.state.epoch)

    def save(self, epoch: int, validation_dice: float | None = None) -> None:
        """Save the weights as those of an epoch.

        Args:
            epoch: the trainer's epoch.
            validation_dice: the mean Dice of its validation; None when there was none.
        """
        if idist.get_rank() > 0:
            return
        write_settings(self.path, replace(self.settings, epoch=epoch, validation_dice=validation_dice))
        state = self.network.state_dict()
        save_atomically(half_precision(state) if self.half else state, self.path)
        told = "without validation" if validation_dice is None else f"validation Dice {validation_dice:.3f}"
        _log.info("%s: epoch %d, %s", self.path, epoch, told)


class SaveBest(SaveWeights):
    """Handler that saves a network's weights whenever an evaluator's key metric, the mean Dice, is the best so far.

    Its own ``state_dict`` is the best value, so that a resumed training does not overwrite better weights.
    """

    best = float("-inf")

    def __call__(self, engine: Engine) -> None:
        """Save when the epoch just ended is the best; MONAI gives its evaluators the trainer's epoch."""
        value = float(engine.state.metrics[engine.state.key_metric_name])
        if value > self.best:
            self.best = value
            self.save(engine.state.epoch, value)

    def state_dict(self) -> dict[str, float]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take the best value over."""
        self.best = state_dict["best"]


class LoadCheckpoint(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` that raises :class:`InputError`, and resumes with the epoch length of today's data.

    Args:
        load_path: a checkpoint of :class:`SaveLast`, or weights alone when ``load_dict`` has one entry.
        load_dict: what takes the state over, by name.
        device: where the tensors go.
        strict: False takes weights of another network, as far as their names and shapes are those of ``"model"``; the
            log names its parts that stay new.
        settings: how images are prepared here; the log warns when those of the weights were prepared in another way.

    Raises:
        InputError: when the file does not exist, is not a checkpoint, or is one of another network, of which nothing
            can be taken where ``strict`` is False.
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
        """Load."""
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
        """Keep the epoch length of the data loader: a checkpoint has that of the data it was made with."""
        epoch_length = engine.state.epoch_length
        super().__call__(engine)
        if epoch_length is not None and epoch_length != engine.state.epoch_length:
            engine.state.epoch_length = epoch_length
            engine.state.iteration = engine.state.epoch * epoch_length

    def _load_what_fits(self, engine: Engine) -> None:
        """MONAI's own ``strict_shape=False`` looks for the weights' names one level too high and takes nothing."""
        state = torch.load(self.load_path, map_location=self.map_location, weights_only=True)
        _, taken, left = copy_model_state(self.load_dict["model"], state.get("model", state))
        if not taken:
            raise InputError(f"{self.load_path} holds nothing that fits this network.")
        engine.logger.info("%s: %d parts taken; new are %s", self.load_path, len(taken), ", ".join(left) or "none")
