"""Downloaded cohorts: their cases, lesion masks and splits."""

from bundle.data.cohorts.cases import Case, Cohort
from bundle.data.cohorts.labels import prepare_label
from bundle.data.cohorts.layouts import LAYOUTS, Layout, read_cohort
from bundle.data.cohorts.splits import SPLITS, split_cases

__all__ = ["LAYOUTS", "SPLITS", "Case", "Cohort", "Layout", "prepare_label", "read_cohort", "split_cases"]
