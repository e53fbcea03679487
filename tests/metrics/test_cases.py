"""Metrics of a case and of a set of cases, against numbers worked out by hand and against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from bundle.metrics import case_metrics, dsc_by_volume, summarize
from tests.conftest import ellipsoid

SPACING_MM = (2.0, 3.0, 4.0)
"""A voxel is 24 mm3."""


def mask(*voxels: tuple[int, int, int], shape: tuple[int, int, int] = (7, 7, 7)) -> torch.Tensor:
    """A mask of these voxels."""
    result = torch.zeros(shape, dtype=torch.uint8)
    for voxel in voxels:
        result[voxel] = 1
    return result


def counts(tp: int, fp: int, fn: int, asd_mm: float = 0.0) -> dict[str, float]:
    """A case as ``case_metrics`` gives it, from its counts."""
    return {
        "dsc": 2 * tp / (2 * tp + fp + fn),
        "recall": tp / (tp + fn) if tp + fn else 0.0,
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "jaccard": tp / (tp + fp + fn),
        "asd_mm": asd_mm,
        "hd95_mm": asd_mm,
        "volume_difference_ml": abs(fp - fn) * 0.024,
        "lesion_f1_overlap": 1.0,
        "lesion_f1_iou25": 0.0,
        "tp": tp,
        "fp": fp,
        "fn": fn,
    }


def test_two_voxels_of_which_one_is_hit() -> None:
    metrics = case_metrics(mask((2, 3, 3), (3, 3, 3)), mask((1, 3, 3), (2, 3, 3)), SPACING_MM)
    # One hit, one false alarm, one miss: DSC 2 * 1 / (2 * 1 + 1 + 1), Jaccard 1 / 3.
    assert (metrics["tp"], metrics["fp"], metrics["fn"]) == (1, 1, 1)
    assert metrics["dsc"] == pytest.approx(0.5)
    assert metrics["recall"] == pytest.approx(0.5)
    assert metrics["precision"] == pytest.approx(0.5)
    assert metrics["jaccard"] == pytest.approx(1 / 3)
    # From the prediction to the truth 0 and 2 mm, and back 0 and 2 mm: mean 1 mm; 95 % of the way from 0 to 2 mm.
    assert metrics["asd_mm"] == pytest.approx(1.0)
    assert metrics["hd95_mm"] == pytest.approx(1.9)
    # Two voxels of 24 mm3 each.
    assert metrics["volume_ml"] == pytest.approx(0.048)
    assert metrics["true_volume_ml"] == pytest.approx(0.048)


def test_recall_and_precision_are_not_swapped() -> None:
    truth = mask((1, 3, 3), (2, 3, 3), (3, 3, 3), (4, 3, 3))
    metrics = case_metrics(mask((1, 3, 3)), truth, SPACING_MM)
    # 1 of 4 lesion voxels is found, and everything that is found is lesion: DSC 2 / (2 + 3).
    assert metrics["recall"] == pytest.approx(0.25)
    assert metrics["precision"] == 1.0
    assert metrics["dsc"] == pytest.approx(0.4)
    assert metrics["volume_ml"] == pytest.approx(0.024)
    assert metrics["true_volume_ml"] == pytest.approx(0.096)


@pytest.mark.parametrize(("axis", "distance_mm"), [(0, 4.0), (1, 6.0), (2, 8.0)])
def test_distances_of_single_voxels_two_apart_are_in_mm_of_their_axis(axis: int, distance_mm: float) -> None:
    other = [3, 3, 3]
    other[axis] += 2
    metrics = case_metrics(mask((3, 3, 3)), mask(tuple(other)), SPACING_MM)
    assert metrics["asd_mm"] == pytest.approx(distance_mm)
    assert metrics["hd95_mm"] == pytest.approx(distance_mm)
    assert metrics["dsc"] == 0.0


@pytest.mark.parametrize("swapped", [False, True])
def test_distances_are_symmetric(swapped: bool) -> None:
    one, two = mask((3, 3, 1)), mask((3, 3, 1), (3, 3, 5))
    pred, truth = (two, one) if swapped else (one, two)
    metrics = case_metrics(pred, truth, SPACING_MM)
    # 0 mm one way, 0 and 4 * 4 = 16 mm the other: mean 16 / 3, and the greater of 0 and 0.95 * 16.
    assert metrics["asd_mm"] == pytest.approx(16 / 3)
    assert metrics["hd95_mm"] == pytest.approx(15.2)


def test_whatever_is_not_zero_is_lesion() -> None:
    truth, pred = mask((1, 1, 1)) * 255, mask((1, 1, 1)).float() * 0.5
    assert case_metrics(pred, truth, SPACING_MM)["tp"] == 1


OVERLAPS = ("dsc", "recall", "precision", "jaccard")


@pytest.mark.parametrize(
    ("pred", "truth", "overlap", "distance_mm"),
    [
        (mask(), mask(), 1.0, 0.0),
        (mask((1, 1, 1)), mask(), 0.0, math.nan),
        (mask(), mask((1, 1, 1)), 0.0, math.nan),
        (mask((1, 1, 1)), mask((1, 1, 1)), 1.0, 0.0),
    ],
    ids=["both empty", "truth empty", "prediction empty", "neither empty"],
)
def test_the_empty_mask_rule(pred: torch.Tensor, truth: torch.Tensor, overlap: float, distance_mm: float) -> None:
    metrics = case_metrics(pred, truth, SPACING_MM)
    assert [metrics[name] for name in OVERLAPS] == [overlap] * 4
    assert [metrics["asd_mm"], metrics["hd95_mm"]] == pytest.approx([distance_mm] * 2, nan_ok=True)


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction is \[7, 7, 7\] and the truth \[7, 7, 6\]: they must match"):
        case_metrics(mask(), mask(shape=(7, 7, 6)), SPACING_MM)


def test_overlap_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    pred, truth = (rng.random((6, 7, 8)) < share for share in (0.3, 0.4))
    metrics = case_metrics(torch.from_numpy(pred), torch.from_numpy(truth), SPACING_MM)
    flat = truth.ravel(), pred.ravel()
    expected = {
        "dsc": f1_score(*flat),
        "recall": recall_score(*flat),
        "precision": precision_score(*flat),
        "jaccard": jaccard_score(*flat),
    }
    assert {name: metrics[name] for name in OVERLAPS} == pytest.approx(expected)


def to_surface_mm(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distances from the surface voxels of one mask to those of another."""
    surface, other = (voxels & ~ndimage.binary_erosion(voxels) for voxels in (start, end))
    return ndimage.distance_transform_edt(~other, sampling=SPACING_MM)[surface]


def test_surface_distances_agree_with_scipy() -> None:
    pred = ellipsoid((24, 24, 24), (11, 12, 10), (6, 4, 5))
    truth = ellipsoid((24, 24, 24), (13, 11, 12), (5, 7, 3))
    metrics = case_metrics(torch.from_numpy(pred), torch.from_numpy(truth), SPACING_MM)
    there, back = to_surface_mm(pred, truth), to_surface_mm(truth, pred)
    assert metrics["asd_mm"] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-4)
    assert metrics["hd95_mm"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-4)


def test_global_dsc_pools_voxels_and_is_not_the_mean() -> None:
    # A small case with DSC 2 / 4 = 0.5 and a large one with 180 / 200 = 0.9: mean 0.7, sd 0.4 / sqrt(2).
    summary = summarize([counts(1, 1, 1), counts(90, 10, 10)])
    assert summary["cases"] == 2
    assert summary["dsc"] == pytest.approx(0.7)
    assert summary["dsc_sd"] == pytest.approx(0.4 / math.sqrt(2))
    # Pooled: 2 * 91 / (2 * 91 + 11 + 11) = 182 / 204.
    assert summary["dsc_global"] == pytest.approx(182 / 204)


def test_the_median_is_that_of_the_cases() -> None:
    # DSC 0.5, 0.9 and 2 / 8 = 0.25.
    assert summarize([counts(1, 1, 1), counts(90, 10, 10), counts(1, 3, 3)])["dsc_median"] == pytest.approx(0.5)


def test_undefined_distances_are_left_out_and_counted() -> None:
    summary = summarize([counts(1, 0, 1, asd_mm=2.0), counts(1, 0, 1, asd_mm=5.0), counts(0, 4, 0, asd_mm=math.nan)])
    # (2 + 5) / 2 = 3.5, sd 3 / sqrt(2); overlap counts the third case: (2 / 3 + 2 / 3 + 0) / 3.
    assert summary["asd_mm"] == pytest.approx(3.5)
    assert summary["asd_mm_sd"] == pytest.approx(3 / math.sqrt(2))
    assert summary["asd_mm_undefined"] == summary["hd95_mm_undefined"] == 1
    assert "dsc_undefined" not in summary
    assert summary["dsc"] == pytest.approx(4 / 9)


def test_distances_defined_nowhere_stay_undefined() -> None:
    summary = summarize([counts(0, 4, 0, asd_mm=math.nan)])
    assert math.isnan(summary["asd_mm"])
    assert math.isnan(summary["asd_mm_sd"])
    assert summary["asd_mm_undefined"] == 1


def test_the_standard_deviation_of_one_case_is_undefined() -> None:
    assert math.isnan(summarize([counts(1, 1, 1)])["dsc_sd"])


def test_cases_without_any_lesion_voxel_have_global_dsc_1() -> None:
    assert summarize([case_metrics(mask(), mask(), SPACING_MM)])["dsc_global"] == 1.0


def test_dsc_is_averaged_over_cases_of_similar_volume() -> None:
    volumes = (0.05, 0.1, 0.9, 10.0, 49.0, 50.0)
    cases = [{"true_volume_ml": volume, "dsc": number / 10} for number, volume in enumerate(volumes)]
    found = dsc_by_volume(cases)
    assert found.pop("<0.1") == (0.0, 1)
    assert found.pop("0.1-1") == (pytest.approx(0.15), 2)
    empty, none = found.pop("1-10")
    assert math.isnan(empty)
    assert none == 0
    assert found == {"10-50": (pytest.approx(0.35), 2), ">=50": (pytest.approx(0.5), 1)}
