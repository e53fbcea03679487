"""Ignite handlers: checkpoints, progress, the tables of an evaluation and of validations."""

from bundle.handlers.case_table import CaseTable
from bundle.handlers.checkpoints import LoadCheckpoint, SaveBest, SaveLast, SaveWeights, half_precision, save_atomically
from bundle.handlers.progress import EpochMetrics, IterationBar, LossParts
from bundle.handlers.validation_table import VALIDATION_SIZES, ValidationTable, validation_metrics

__all__ = [
    "VALIDATION_SIZES",
    "CaseTable",
    "EpochMetrics",
    "IterationBar",
    "LoadCheckpoint",
    "LossParts",
    "SaveBest",
    "SaveLast",
    "SaveWeights",
    "ValidationTable",
    "half_precision",
    "save_atomically",
    "validation_metrics",
]
