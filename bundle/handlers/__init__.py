"""Ignite handlers: checkpoints, progress, the table of cases."""

from bundle.handlers.case_table import CaseTable
from bundle.handlers.checkpoints import LoadCheckpoint, SaveBest, SaveLast, SaveWeights, load_ensemble, read_settings
from bundle.handlers.progress import IterationBar, LossParts

__all__ = [
    "CaseTable",
    "IterationBar",
    "LoadCheckpoint",
    "LossParts",
    "SaveBest",
    "SaveLast",
    "SaveWeights",
    "load_ensemble",
    "read_settings",
]
