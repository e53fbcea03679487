"""Metrics per case and over a set of cases."""

from bundle.metrics.cases import CASE_METRICS, case_metrics, dsc_by_volume, summarize
from bundle.metrics.lesions import SIZE_BINS, Lesion, lesion_f1, recall_by_size, size_bin, true_lesions

__all__ = [
    "CASE_METRICS",
    "SIZE_BINS",
    "Lesion",
    "case_metrics",
    "dsc_by_volume",
    "lesion_f1",
    "recall_by_size",
    "size_bin",
    "summarize",
    "true_lesions",
]
