"""Checkpoints that a killed run cannot spoil: each is written aside and renamed.

MONAI's ``CheckpointSaver`` writes in place, so a kill while it writes leaves half a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader

from bundle.errors import InputError

__all__ = ["LoadCheckpoint", "SaveBest", "SaveLast", "save_atomically"]


def save_atomically(content: Any, path: str | Path) -> None:
    """``torch.save`` to a file that is whole or not there.

    Args:
        content: what to save.
        path: the file; its folder is made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    torch.save(content, unfinished)
    unfinished.replace(target)


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


class SaveBest:
    """Saves a network's weights whenever the engine's key metric is the best so far; always, without a key metric.

    Its own ``state_dict`` is the best value, so that a resumed training does not overwrite better weights.

    Args:
        path: the weights, a plain state dict.
        network: whose weights.
    """

    def __init__(self, path: str, network: torch.nn.Module) -> None:
        self.path = path
        self.network = network
        self.best = float("-inf")

    def attach(self, engine: Engine) -> None:
        """Attaches to an evaluator, or to the trainer where nothing is validated."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Saves when the epoch just ended is the best."""
        name = engine.state.key_metric_name
        value = float("inf") if name is None else float(engine.state.metrics[name])
        if value > self.best or name is None:
            self.best = self.best if name is None else value
            if _is_first_process():
                save_atomically(self.network.state_dict(), self.path)

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

    Raises:
        InputError: when the file does not exist, is no checkpoint or is one of another network.
    """

    def __init__(self, load_path: str, load_dict: dict, device: str | torch.device = "cpu") -> None:
        if not Path(load_path).is_file():
            raise InputError(f"{load_path} does not exist: weights or a checkpoint of an earlier run are expected.")
        super().__init__(load_path, load_dict, map_location=device)

    def __call__(self, engine: Engine) -> None:
        """Loads."""
        try:
            super().__call__(engine)
        except Exception as error:  # torch, pickle and zip errors differ from file to file
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{self.load_path} could not be loaded into this network: {reason}") from error
