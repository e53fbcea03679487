"""Metrics of one case lesion by lesion.

A lesion is a connected component of :func:`bundle.lesions.components`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from bundle.lesions import bounding_box, components

__all__ = ["SIZE_BINS", "Lesion", "lesion_f1", "recall_by_size", "size_bin", "true_lesions"]

_MATCHING_IOU = 0.25

_SIZE_EDGES_ML = (0.1, 1.0, 10.0, 50.0)
SIZE_BINS = ("<0.1", "0.1-1", "1-10", "10-50", ">=50")
"""Volumes in mL, of lesions or of cases; a bin holds its lower limit and not its upper one."""


class Lesion(NamedTuple):
    """A true lesion: its size, whether at least one of its voxels is predicted, and the share of them that is."""

    size_ml: float
    found: bool
    share: float


def _masks(pred: torch.Tensor, label: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    if pred.shape != label.shape:
        raise ValueError(f"The prediction is {list(pred.shape)} and the truth {list(label.shape)}: they must match.")
    return np.asarray(pred.bool()), np.asarray(label.bool())


def _matches(truth: np.ndarray, found: np.ndarray) -> int:
    """The greatest number of one-to-one pairs of a true and a predicted lesion whose IoU is at least 0.25.

    Args:
        truth: number of the true lesion in each voxel, from 1; 0 is background.
        found: number of the predicted lesion, of the same shape.
    """
    both = (truth > 0) & (found > 0)
    if not both.any():
        return 0
    true_sizes, found_sizes = np.bincount(truth.ravel()), np.bincount(found.ravel())
    shape = len(true_sizes), len(found_sizes)
    shared = coo_array((np.ones(both.sum(), dtype=int), (truth[both], found[both])), shape).tocsr().tocoo()
    iou = shared.data / (true_sizes[shared.row] + found_sizes[shared.col] - shared.data)
    good = iou >= _MATCHING_IOU
    pairs = coo_array((good[good], (shared.row[good], shared.col[good])), shape).tocsr()
    return int((maximum_bipartite_matching(pairs) >= 0).sum())


def lesion_f1(pred: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    """Lesion-wise F1, ``2 TP / (2 TP + FP + FN)``, by two rules of what is found.

    - ``lesion_f1_overlap``: TP and FN are the true lesions with and without a predicted voxel, FP the predicted lesions
      without a true voxel.
    - ``lesion_f1_iou25``: TP are pairs of a true and a predicted lesion with an IoU of 0.25 or more, one to one and as
      many as possible; FN and FP are what is left over.

    Both are 1 when prediction and truth are both empty, 0 when one of them is.

    Args:
        pred: predicted mask ``(H, W, D)``, not 0 is lesion.
        label: true mask, of the same shape.

    Raises:
        ValueError: when the shapes differ.
    """
    p, g = _masks(pred, label)
    box = bounding_box(p | g)
    truth, true_count = components(g[box])
    found, found_count = components(p[box])
    if true_count + found_count == 0:
        return {"lesion_f1_overlap": 1.0, "lesion_f1_iou25": 1.0}
    hit = len(np.unique(truth[p[box] & g[box]]))
    false_alarms = found_count - len(np.unique(found[p[box] & g[box]]))
    matched = _matches(truth, found)
    return {
        "lesion_f1_overlap": 2 * hit / (hit + true_count + false_alarms),
        "lesion_f1_iou25": 2 * matched / (true_count + found_count),
    }


def true_lesions(pred: torch.Tensor, label: torch.Tensor, spacing_mm: Sequence[float]) -> list[Lesion]:
    """The true lesions, and how much of each is predicted.

    Args:
        pred: predicted mask ``(H, W, D)``, not 0 is lesion.
        label: true mask, of the same shape.
        spacing_mm: voxel size along the three axes.

    Raises:
        ValueError: when the shapes differ.
    """
    p, g = _masks(pred, label)
    box = bounding_box(g)
    truth, _ = components(g[box])
    sizes = np.bincount(truth.ravel())[1:]
    hits = np.bincount(truth[p[box]], minlength=len(sizes) + 1)[1:]
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return [
        Lesion(size * voxel_ml, hit > 0, hit / size) for size, hit in zip(sizes.tolist(), hits.tolist(), strict=True)
    ]


def size_bin(volume_ml: float) -> str:
    """Which of :data:`SIZE_BINS` a volume is in."""
    return SIZE_BINS[int(np.digitize(volume_ml, _SIZE_EDGES_ML))]


def recall_by_size(lesions: Iterable[Lesion]) -> dict[str, tuple[int, int]]:
    """How many lesions were found and how many there are, by the size bins of :data:`SIZE_BINS`."""
    counts = {name: [0, 0] for name in SIZE_BINS}
    for lesion in lesions:
        count = counts[size_bin(lesion.size_ml)]
        count[0] += lesion.found
        count[1] += 1
    return {name: (found, total) for name, (found, total) in counts.items()}
