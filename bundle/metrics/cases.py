"""Metrics of one case and of a set of cases (thesis 3.5.2, 4.4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from bundle.metrics.lesions import SIZE_BINS, lesion_f1, size_bin

__all__ = ["CASE_METRICS", "case_metrics", "dsc_by_volume", "summarize"]

CASE_METRICS = (
    "dsc",
    "recall",
    "precision",
    "jaccard",
    "asd_mm",
    "hd95_mm",
    "volume_difference_ml",
    "lesion_f1_overlap",
    "lesion_f1_iou25",
)
"""The metrics that are averaged over the cases."""


def _ratio(part: float, whole: float, both_empty: bool) -> float:
    if both_empty:
        return 1.0
    return part / whole if whole else 0.0


def case_metrics(pred: torch.Tensor, label: torch.Tensor, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Return overlap, surface distances, volumes and lesion-wise F1 of one case.

    The empty-mask rule, the same in every table: if prediction and truth are both empty, DSC, recall, precision,
    Jaccard and lesion F1 are 1 and the distances 0; if only one of them is, the former are 0 and the distances are
    undefined (NaN).

    Args:
        pred: predicted mask ``(H, W, D)``, not 0 is lesion.
        label: true mask, of the same shape.
        spacing_mm: voxel size along the three axes.

    Returns:
        ``dsc``, ``recall``, ``precision``, ``jaccard``; ``asd_mm``, the symmetric average surface distance;
        ``hd95_mm``, the 95th percentile of the Hausdorff distance; ``volume_ml``, ``true_volume_ml`` and
        ``volume_difference_ml``, which is absolute; ``lesion_f1_overlap`` and ``lesion_f1_iou25`` of
        :func:`bundle.metrics.lesion_f1`; ``tp``, ``fp``, ``fn``.

    Raises:
        ValueError: if the shapes differ.
    """
    by_lesion = lesion_f1(pred, label)
    p, g = pred.bool(), label.bool()
    tp, fp, fn = int((p & g).sum()), int((p & ~g).sum()), int((~p & g).sum())
    both_empty = tp + fp + fn == 0
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    asd = hd95 = 0.0 if both_empty else float("nan")
    if p.any() and g.any():
        masks = {"y_pred": p[None, None].float(), "y": g[None, None].float(), "include_background": True}
        spacing = [float(size) for size in spacing_mm]
        asd = float(compute_average_surface_distance(**masks, symmetric=True, spacing=spacing))
        hd95 = float(compute_hausdorff_distance(**masks, percentile=95, spacing=spacing))
    return {
        "dsc": _ratio(2 * tp, 2 * tp + fp + fn, both_empty),
        "recall": _ratio(tp, tp + fn, both_empty),
        "precision": _ratio(tp, tp + fp, both_empty),
        "jaccard": _ratio(tp, tp + fp + fn, both_empty),
        "asd_mm": asd,
        "hd95_mm": hd95,
        "volume_ml": (tp + fp) * voxel_ml,
        "true_volume_ml": (tp + fn) * voxel_ml,
        "volume_difference_ml": abs(fp - fn) * voxel_ml,
        **by_lesion,
        "tp": tp,
        "fp": fp,
        "fn": fn,
    }


def summarize(cases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means over the cases, and the global DSC of the pooled counts.

    Args:
        cases: of :func:`case_metrics`, at least one.

    Returns:
        ``cases``; the mean of each case metric and ``<metric>_sd`` over the cases in which it is defined, with
        ``<metric>_undefined``, the number of the others, if there are any; ``dsc_median``; ``dsc_global``.
    """
    summary: dict[str, float] = {"cases": len(cases)}
    for name in CASE_METRICS:
        values = np.array([case[name] for case in cases], dtype=float)
        defined = values[~np.isnan(values)]
        summary[name] = float(defined.mean()) if len(defined) else float("nan")
        summary[f"{name}_sd"] = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
        if len(defined) < len(values):
            summary[f"{name}_undefined"] = len(values) - len(defined)
    summary["dsc_median"] = float(np.median([case["dsc"] for case in cases]))
    tp, fp, fn = (sum(case[name] for case in cases) for name in ("tp", "fp", "fn"))
    summary["dsc_global"] = _ratio(2 * tp, 2 * tp + fp + fn, tp + fp + fn == 0)
    return summary


def dsc_by_volume(cases: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, int]]:
    """Return the mean DSC and the number of the cases in each bin of :data:`SIZE_BINS`, by their true volume.

    Args:
        cases: of :func:`case_metrics`.

    Returns:
        NaN and 0 for a bin without cases.
    """
    values: dict[str, list[float]] = {name: [] for name in SIZE_BINS}
    for case in cases:
        values[size_bin(case["true_volume_ml"])].append(case["dsc"])
    return {name: (float(np.mean(dsc)) if dsc else float("nan"), len(dsc)) for name, dsc in values.items()}
