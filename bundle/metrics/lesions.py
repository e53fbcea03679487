"""Lesion-wise metrics of one case.

A lesion is a connected component of :func:`bundle.lesions.components`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from bundle.lesions import bounding_box, components

__all__ = ["SIZE_BINS", "Lesion", "lesion_f1", "recall_by_size", "size_bin", "true_lesions"]

_MATCHING_IOU = 0.25

_SIZE_EDGES_ML = (0.1, 1.0, 10.0, 50.0)
SIZE_BINS = ("<0.1", "0.1-1", "1-10", "10-50", ">=50")
"""Bins of volumes in mL, of lesions or of cases; the lower limit is inside, the upper one is not."""


class Lesion(NamedTuple):
    """A true lesion: its size, whether at least one of its voxels is predicted, and the fraction that is."""

    size_ml: float
    found: bool
    share: float


def _overlaps(pred: torch.Tensor, label: torch.Tensor) -> csr_array:
    """Return how many voxels true and predicted lesions share, ``(true + 1, predicted + 1)``; 0 is background."""
    if pred.shape != label.shape:
        raise ValueError(f"The prediction is {list(pred.shape)} and the truth {list(label.shape)}: they must match.")
    p, g = np.asarray(pred.bool()), np.asarray(label.bool())
    box = bounding_box(p | g)
    (truth, true_count), (found, found_count) = components(g[box]), components(p[box])
    pairs = np.ones(truth.size, dtype=int), (truth.ravel(), found.ravel())
    return coo_array(pairs, (true_count + 1, found_count + 1)).tocsr()


def lesion_f1(pred: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    """Return the lesion-wise F1, ``2 TP / (2 TP + FP + FN)``, by two definitions of a found lesion.

    - ``lesion_f1_overlap``: TP and FN are the true lesions with and without a predicted voxel, FP the predicted lesions
      without a true voxel.
    - ``lesion_f1_iou25``: TP are one-to-one pairs of a true and a predicted lesion with an IoU of at least 0.25, as
      many as possible; FN and FP are the lesions without a partner.

    Both are 1 if prediction and truth are both empty, 0 if only one of them is.

    Args:
        pred: predicted mask ``(H, W, D)``, not 0 is lesion.
        label: true mask, of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    overlaps = _overlaps(pred, label)
    true_sizes, found_sizes = overlaps.sum(axis=1), overlaps.sum(axis=0)
    true_count, found_count = len(true_sizes) - 1, len(found_sizes) - 1
    if true_count + found_count == 0:
        return {"lesion_f1_overlap": 1.0, "lesion_f1_iou25": 1.0}
    overlaps = overlaps.tocoo()
    both = (overlaps.row > 0) & (overlaps.col > 0)
    true, found, shared = overlaps.row[both], overlaps.col[both], overlaps.data[both]
    hit, false_alarms = len(np.unique(true)), found_count - len(np.unique(found))
    match = shared / (true_sizes[true] + found_sizes[found] - shared) >= _MATCHING_IOU
    pairs = coo_array((match[match], (true[match], found[match])), overlaps.shape).tocsr()
    matched = int((maximum_bipartite_matching(pairs) >= 0).sum())
    return {
        "lesion_f1_overlap": 2 * hit / (hit + true_count + false_alarms),
        "lesion_f1_iou25": 2 * matched / (true_count + found_count),
    }


def true_lesions(pred: torch.Tensor, label: torch.Tensor, spacing_mm: Sequence[float]) -> list[Lesion]:
    """Return the true lesions, with the fraction of each that is predicted.

    Args:
        pred: predicted mask ``(H, W, D)``, not 0 is lesion.
        label: true mask, of the same shape.
        spacing_mm: voxel size along the three axes.

    Raises:
        ValueError: if the shapes differ.
    """
    overlaps = _overlaps(pred, label)
    sizes = overlaps.sum(axis=1)[1:]
    hits = sizes - overlaps[:, [0]].toarray()[1:, 0]
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return [
        Lesion(size * voxel_ml, hit > 0, hit / size) for size, hit in zip(sizes.tolist(), hits.tolist(), strict=True)
    ]


def size_bin(volume_ml: float) -> str:
    """Return the bin of :data:`SIZE_BINS` that a volume is in."""
    return SIZE_BINS[int(np.digitize(volume_ml, _SIZE_EDGES_ML))]


def recall_by_size(lesions: Iterable[Lesion]) -> dict[str, tuple[int, int]]:
    """Return how many lesions were found and how many there are, for each bin of :data:`SIZE_BINS`."""
    found: dict[str, list[bool]] = {name: [] for name in SIZE_BINS}
    for lesion in lesions:
        found[size_bin(lesion.size_ml)].append(lesion.found)
    return {name: (sum(each), len(each)) for name, each in found.items()}
