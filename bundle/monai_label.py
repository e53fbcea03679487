"""Training in MONAI Label, which gives the cases and epochs and expects the new weights in the place of the old."""

from __future__ import annotations

import sys
from typing import NamedTuple

from bundle.weights import WeightsSettings, read_settings

__all__ = ["StartingPoint", "in_monai_label", "starting_point"]

# MONAI Label's overrides for the processes of several GPUs, in which it is not imported itself.
_ITS_CONFIG = "monailabel_train.json"


def in_monai_label() -> bool:
    """Return whether this process is a MONAI Label server, a task of one, or a training of one on several GPUs."""
    return "monailabel" in sys.modules or any(_ITS_CONFIG in word for word in sys.argv)


class StartingPoint(NamedTuple):
    """The settings that a training starts with, see :func:`starting_point`."""

    settings: WeightsSettings
    learning_rate: float
    best_weights: str


def starting_point(
    settings: WeightsSettings, learning_rate: float, best_weights: str, shipped_weights: str
) -> StartingPoint:
    """Return the settings that a training starts with: the given ones or, in MONAI Label, those of the shipped weights.

    MONAI Label continues the training of the shipped weights with a tenth of the learning rate and replaces them.

    Args:
        settings: how images are prepared, and the threshold.
        learning_rate: of the optimizer.
        best_weights: file of the training's weights.
        shipped_weights: the bundle's ``models/model.pt``.

    Raises:
        InputError: in MONAI Label, when the settings of the shipped weights cannot be used.
    """
    if not in_monai_label():
        return StartingPoint(settings, learning_rate, best_weights)
    return StartingPoint(read_settings(shipped_weights), learning_rate / 10, shipped_weights)
