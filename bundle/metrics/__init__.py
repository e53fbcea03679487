"""Metrics per case and over a set of cases."""

from bundle.metrics.cases import CASE_METRICS, case_metrics, summarize

__all__ = ["CASE_METRICS", "case_metrics", "summarize"]
