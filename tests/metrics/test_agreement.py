"""The metrics of a case against independent implementations, on random masks and on edge cases."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from medpy.metric.binary import assd
from monai.metrics import compute_panoptic_quality
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score
from sklearn.metrics.cluster import contingency_matrix

from bundle.metrics import case_metrics, lesion_f1

Pair = tuple[np.ndarray, np.ndarray]
"""Prediction and truth."""

SHAPES = ((17, 24, 11), (30, 7, 19), (1, 23, 16), (13, 5, 40))
SPACINGS_MM = ((1.0, 1.0, 1.0), (0.8, 1.5, 5.0))
SHARES = (0.004, 0.03, 0.12, 0.35, 0.8)


def random_pair(seed: int) -> Pair:
    """Blobs that fill a share of the volume, and a prediction of them that is from good to wrong."""
    rng = np.random.default_rng(seed)
    shape, share = SHAPES[seed % len(SHAPES)], SHARES[seed % len(SHARES)]
    width = rng.uniform(0.5, 1.5)
    common, own = (gaussian_filter(rng.random(shape), width) for _ in range(2))
    found = common + rng.uniform(0.2, 1.5) * own
    return found > np.quantile(found, 1 - share * rng.uniform(0.5, 1)), common > np.quantile(common, 1 - share)


def boxes(*places: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros((21, 8, 6), dtype=bool)
    for place in places:
        mask[place] = True
    return mask


EMPTY, FULL, VOXEL = boxes(), boxes(np.s_[:, :, :]), boxes(np.s_[4:5, 5:6, 2:3])
BLOBS = random_pair(1)[1]
TWO = boxes(np.s_[2:6, 1:5, 1:4], np.s_[7:10, 1:5, 1:4])
CORNERS = boxes(np.s_[2:6, 1:5, 1:3], np.s_[6:9, 5:8, 3:6])
CASES: dict[str, Pair] = {
    **{f"random {seed}": random_pair(seed) for seed in range(len(SHAPES) * len(SHARES))},
    "both empty": (EMPTY, EMPTY),
    "prediction empty": (EMPTY, TWO),
    "truth empty": (VOXEL, EMPTY),
    "identical voxels": (VOXEL, VOXEL),
    "voxels apart": (VOXEL, boxes(np.s_[9:10, 1:2, 4:5])),
    "identical": (BLOBS, BLOBS),
    "both full": (FULL, FULL),
    "prediction full": (FULL, TWO),
    "truth full": (VOXEL, FULL),
    "full and empty": (FULL, EMPTY),
    "at the border": (boxes(np.s_[:3, :3, :3], np.s_[18:, 2:, 5:]), boxes(np.s_[:4, :2, :2], np.s_[20:, :, 4:])),
    "all but the border": (boxes(np.s_[1:-1, 1:-1, 1:-1]), FULL),
    "touching by a corner": (TWO, CORNERS),
    "touching by an edge": (boxes(np.s_[2:6, 1:5, 1:4], np.s_[6:9, 5:8, 1:4]), TWO),
    "touching by a face": (boxes(np.s_[2:6, 1:5, 1:4], np.s_[6:10, 1:4, 1:3]), TWO),
    "two found as one": (boxes(np.s_[2:10, 1:5, 1:4]), TWO),
    "one found as two": (TWO, boxes(np.s_[2:10, 1:5, 1:4])),
    "IoU of a quarter": (boxes(np.s_[0:2, 0:2, 0:2]), boxes(np.s_[0:2, 0:4, 0:4])),
}

each_case = pytest.mark.parametrize(("pred", "truth"), CASES.values(), ids=CASES)
each_spacing = pytest.mark.parametrize("spacing_mm", SPACINGS_MM, ids=str)


def empty_rule(pred: np.ndarray, truth: np.ndarray) -> float:
    """What overlap is when nothing is divided by nothing: 1 when both masks are empty, 0 when one of them is."""
    return float(not pred.any() and not truth.any())


@each_case
def test_overlap_agrees_with_scikit_learn(pred: np.ndarray, truth: np.ndarray) -> None:
    metrics = case_metrics(torch.from_numpy(pred), torch.from_numpy(truth), (1, 1, 1))
    scores = {"dsc": f1_score, "recall": recall_score, "precision": precision_score, "jaccard": jaccard_score}
    for name, score in scores.items():
        expected = score(truth.ravel(), pred.ravel(), zero_division=empty_rule(pred, truth))
        assert metrics[name] == pytest.approx(expected), name


def surface_mm(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Centres of the surface voxels: those with a face to what is not lesion, or to the outside of the volume."""
    padded = np.pad(mask, 1)
    inside = np.logical_and.reduce([np.roll(padded, step, axis) for axis in range(3) for step in (-1, 1)])
    return np.argwhere(padded & ~inside) * spacing_mm


@each_spacing
@each_case
def test_surface_distances_agree_with_a_search_of_the_nearest_surface_voxels(
    pred: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> None:
    # ASD is the mean over the surface voxels of both masks, each counted once. HD95 is the greater of the 95th
    # percentiles of the two directions; MedPy pools them, and DeepMind's surface-distance weighs by area.
    asd_mm = hd95_mm = 0.0 if empty_rule(pred, truth) else math.nan
    if pred.any() and truth.any():
        one, two = surface_mm(pred, spacing_mm), surface_mm(truth, spacing_mm)
        there, back = cKDTree(two).query(one)[0], cKDTree(one).query(two)[0]
        asd_mm = np.concatenate([there, back]).mean()
        hd95_mm = max(np.percentile(there, 95), np.percentile(back, 95))
    metrics = case_metrics(torch.from_numpy(pred), torch.from_numpy(truth), spacing_mm)
    assert metrics["asd_mm"] == pytest.approx(asd_mm, rel=1e-5, nan_ok=True)
    assert metrics["hd95_mm"] == pytest.approx(hd95_mm, rel=1e-5, nan_ok=True)


DEFINED = {name: pair for name, pair in CASES.items() if pair[0].any() and pair[1].any()}
"""MedPy refuses empty masks."""


@each_spacing
@pytest.mark.parametrize(("pred", "truth"), DEFINED.values(), ids=DEFINED)
def test_the_average_surface_distance_agrees_with_medpy(
    pred: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> None:
    asd_mm = case_metrics(torch.from_numpy(pred), torch.from_numpy(truth), spacing_mm)["asd_mm"]
    assert asd_mm == pytest.approx(assd(pred, truth, spacing_mm), rel=1e-5)


def lesions(mask: np.ndarray) -> np.ndarray:
    """Numbers the lesions from 1, as components of the graph of the voxels at most one apart along every axis."""
    numbers, points = np.zeros(mask.shape, dtype=int), np.argwhere(mask)
    if len(points):
        links = cKDTree(points).query_pairs(1, p=math.inf, output_type="ndarray")
        graph = coo_array((np.ones(len(links)), links.T), (len(points), len(points)))
        numbers[mask] = connected_components(graph, directed=False)[1] + 1
    return numbers


def overlaps(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Shared voxels of each true (row) and predicted lesion (column); the first row and column are background."""
    # One more voxel of background, as a full mask has none.
    return contingency_matrix(np.append(lesions(truth), 0), np.append(lesions(pred), 0))


def f1(tp: float, fp: float, fn: float) -> float:
    """Also by the rule of empty masks: 1 when there are no lesions at all."""
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


@each_case
def test_lesion_f1_by_overlap_agrees_with_a_table_of_overlaps(pred: np.ndarray, truth: np.ndarray) -> None:
    shared = overlaps(pred, truth)[1:, 1:]
    hit, real = shared.any(axis=1), shared.any(axis=0)
    expected = f1(hit.sum(), (~real).sum(), (~hit).sum())
    assert lesion_f1(torch.from_numpy(pred), torch.from_numpy(truth))["lesion_f1_overlap"] == pytest.approx(expected)


MORE_PAIRS = (boxes(np.s_[0:4, 0, 0], np.s_[5:21, 0, 0]), boxes(np.s_[0:16, 0, 0], np.s_[17:21, 0, 0]))
"""IoU 4 / 16 of the first lesions and 4 / 16 of the second ones, but 11 / 21 of the true first and the predicted second
one: two pairs by number, and one by the sum of IoU."""


@pytest.mark.parametrize(
    ("pred", "truth"), [*CASES.values(), MORE_PAIRS], ids=[*CASES, "more pairs than by the sum of IoU"]
)
def test_lesion_f1_by_iou_agrees_with_networkx(pred: np.ndarray, truth: np.ndarray) -> None:
    table = overlaps(pred, truth)
    union = table.sum(axis=1, keepdims=True) + table.sum(axis=0, keepdims=True) - table
    pairs = nx.Graph((f"true {row}", f"found {col}") for row, col in np.argwhere(4 * table >= union) if row and col)
    matched = len(nx.max_weight_matching(pairs, maxcardinality=True))
    true_count, found_count = np.array(table.shape) - 1
    expected = f1(matched, found_count - matched, true_count - matched)
    assert lesion_f1(torch.from_numpy(pred), torch.from_numpy(truth))["lesion_f1_iou25"] == pytest.approx(expected)


def panoptic_f1(pred: np.ndarray, truth: np.ndarray) -> float:
    """The F1 of MONAI's panoptic quality, which pairs lesions for the greatest sum of IoU.

    panoptica pairs the most alike first, which for these cases is the same: test_panoptica.py.
    """
    numbers = torch.from_numpy(lesions(pred)), torch.from_numpy(lesions(truth))
    # The threshold itself is not enough for MONAI.
    tp, fp, fn, _ = compute_panoptic_quality(*numbers, match_iou_threshold=0.25 - 1e-6, output_confusion_matrix=True)
    return f1(float(tp), float(fp), float(fn))


@each_case
def test_lesion_f1_by_iou_agrees_with_panoptic_quality(pred: np.ndarray, truth: np.ndarray) -> None:
    matched = lesion_f1(torch.from_numpy(pred), torch.from_numpy(truth))["lesion_f1_iou25"]
    assert matched == pytest.approx(panoptic_f1(pred, truth))


def test_where_lesion_f1_and_panoptic_quality_differ() -> None:
    pred, truth = MORE_PAIRS
    # Two pairs; or one, with a predicted and a true lesion left over.
    assert lesion_f1(torch.from_numpy(pred), torch.from_numpy(truth))["lesion_f1_iou25"] == 1.0
    assert panoptic_f1(pred, truth) == 0.5
