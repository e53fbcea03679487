"""Training inside MONAI Label: it names cases and epochs, and expects the new weights where the old ones are."""

from __future__ import annotations

import sys
from typing import NamedTuple

from bundle.weights import WeightsSettings, read_settings

__all__ = ["StartingPoint", "in_monai_label", "starting_point"]

# What MONAI Label writes its overrides to before it starts a process for each GPU, in which it is not imported.
_ITS_CONFIG = "monailabel_train.json"


def in_monai_label() -> bool:
    """Return whether this process is a MONAI Label server, a task of one, or a training of one on several GPUs."""
    return "monailabel" in sys.modules or any(_ITS_CONFIG in word for word in sys.argv)


class StartingPoint(NamedTuple):
    """What a training begins with, see :func:`starting_point`."""

    settings: WeightsSettings
    learning_rate: float
    best_weights: str


def starting_point(
    settings: WeightsSettings, learning_rate: float, best_weights: str, shipped_weights: str
) -> StartingPoint:
    """Return what a training begins with: what was asked for or, in MONAI Label, what the shipped weights need.

    MONAI Label goes on from the shipped weights: with their settings, a tenth of the learning rate, and the new
    weights in their place.

    Args:
        settings: how images are prepared, and the threshold.
        learning_rate: of the optimizer.
        best_weights: where the training's weights go.
        shipped_weights: the bundle's ``models/model.pt``.

    Raises:
        InputError: in MONAI Label, when the shipped weights have no settings that can be used.
    """
    if not in_monai_label():
        return StartingPoint(settings, learning_rate, best_weights)
    return StartingPoint(read_settings(shipped_weights), learning_rate / 10, shipped_weights)
