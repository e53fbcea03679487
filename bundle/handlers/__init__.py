"""Ignite handlers: checkpoints, progress, the table of cases."""

from bundle.handlers.case_table import CaseTable
from bundle.handlers.checkpoints import LoadCheckpoint, SaveBest, SaveLast, SaveWeights
from bundle.handlers.progress import IterationBar, LossParts

__all__ = [
    "CaseTable",
    "IterationBar",
    "LoadCheckpoint",
    "LossParts",
    "SaveBest",
    "SaveLast",
    "SaveWeights",
]
