"""Lesion-wise metrics, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.metrics import SIZE_BINS, Lesion, case_metrics, lesion_f1, recall_by_size, summarize, true_lesions

SPACING_MM = (2.0, 3.0, 4.0)
"""A voxel is 24 mm3."""


def rows(*runs: tuple[int, int, int], length: int = 12) -> torch.Tensor:
    """A mask ``(length, 9, 3)`` with runs of voxels along the first axis: start, end and place on the second axis."""
    mask = torch.zeros(length, 9, 3, dtype=torch.uint8)
    for start, end, place in runs:
        mask[start:end, place, 1] = 1
    return mask


def f1(pred: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    result = lesion_f1(pred, label)
    assert list(result) == ["lesion_f1_overlap", "lesion_f1_iou25"]
    return result["lesion_f1_overlap"], result["lesion_f1_iou25"]


def test_one_lesion_is_found_one_missed_and_one_false() -> None:
    truth, pred = rows((0, 4, 0), (0, 4, 3)), rows((0, 4, 0), (0, 4, 6))
    # 2 * 1 / (2 * 1 + 1 + 1), by either rule.
    assert f1(pred, truth) == (0.5, 0.5)


@pytest.mark.parametrize(("end", "matched"), [(2, 1.0), (1, 0.0)])
def test_an_iou_of_a_quarter_matches_and_less_does_not(end: int, matched: float) -> None:
    # 2 of 8 voxels found: IoU 2 / 8 = 0.25; 1 of 8: 0.125. By overlap both are found.
    assert f1(rows((0, end, 0)), rows((0, 8, 0))) == (1.0, matched)


def test_a_lesion_found_as_two_components_is_matched_once() -> None:
    truth, pred = rows((0, 10, 0)), rows((0, 4, 0), (5, 9, 0))
    # Neither component is a false alarm by overlap. One to one, IoU 4 / 10: one pair and one false alarm: 2 / (1 + 2).
    assert f1(pred, truth) == (1.0, pytest.approx(2 / 3))


def test_two_lesions_found_as_one_are_matched_once() -> None:
    truth, pred = rows((0, 4, 0), (5, 9, 0)), rows((0, 9, 0))
    # Both have a predicted voxel: 2 * 2 / (2 * 2). One to one, IoU 4 / 9: 2 / (2 + 1).
    assert f1(pred, truth) == (1.0, pytest.approx(2 / 3))


def test_as_many_pairs_as_possible_are_matched() -> None:
    truth, pred = rows((0, 6, 0), (7, 11, 0)), rows((0, 2, 0), (3, 9, 0))
    # IoU: true 1 with predicted 1: 2 / 6, with predicted 2: 3 / 9; true 2 with predicted 2: 2 / 8. Only 1-1 and 2-2
    # match both, though 1-2 has a greater IoU than 2-2.
    assert f1(pred, truth) == (1.0, 1.0)


def test_voxels_that_touch_by_a_corner_are_one_lesion() -> None:
    truth = torch.zeros(4, 4, 4)
    truth[0, 0, 0] = truth[1, 1, 1] = 1
    truth[3, 3, 3] = 1
    sizes = [lesion.size_ml for lesion in true_lesions(truth, truth, SPACING_MM)]
    assert sizes == pytest.approx([0.048, 0.024])


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [(rows(), rows(), 1.0), (rows((0, 2, 0)), rows(), 0.0), (rows(), rows((0, 2, 0)), 0.0)],
    ids=["both empty", "truth empty", "prediction empty"],
)
def test_the_empty_mask_rule(pred: torch.Tensor, truth: torch.Tensor, expected: float) -> None:
    assert f1(pred, truth) == (expected, expected)
    metrics = case_metrics(pred, truth, SPACING_MM)
    assert (metrics["lesion_f1_overlap"], metrics["lesion_f1_iou25"]) == (expected, expected)


def test_lesions_have_size_and_the_share_that_is_found() -> None:
    truth, pred = rows((0, 4, 0), (0, 10, 3), (2, 3, 6)), rows((3, 8, 0), (0, 5, 3))
    # 4, 10 and 1 voxels of 0.024 mL, of which 1, 5 and 0 are predicted.
    lesions = true_lesions(pred, truth, SPACING_MM)
    assert [lesion.size_ml for lesion in lesions] == pytest.approx([0.096, 0.24, 0.024])
    assert [lesion.found for lesion in lesions] == [True, True, False]
    assert [lesion.share for lesion in lesions] == [0.25, 0.5, 0.0]


def test_there_are_no_lesions_in_an_empty_truth() -> None:
    assert true_lesions(rows((0, 3, 0)), rows(), SPACING_MM) == []


@pytest.mark.parametrize("metric", [lesion_f1, lambda pred, label: true_lesions(pred, label, SPACING_MM)])
def test_masks_of_different_shapes_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"prediction is \[12, 9, 3\] and the truth \[5, 9, 3\]: they must match"):
        metric(rows(), rows(length=5))  # type: ignore[operator]


def test_a_lesion_at_a_limit_of_the_sizes_counts_above_it() -> None:
    sizes = [0.05, 0.1, 0.5, 1.0, 9.99, 10.0, 49.0, 50.0, 200.0]
    counts = recall_by_size(Lesion(size, size >= 1, 0.5) for size in sizes)
    assert list(counts) == list(SIZE_BINS)
    assert list(counts.values()) == [(0, 1), (0, 2), (2, 2), (2, 2), (2, 2)]


def test_volume_difference_is_absolute_and_in_ml() -> None:
    # 2 voxels against 5 and against 1 of 0.024 mL.
    for end, expected in ((5, 3), (1, 1)):
        metrics = case_metrics(rows((0, 2, 0)), rows((0, end, 4)), SPACING_MM)
        assert metrics["volume_difference_ml"] == pytest.approx(expected * 0.024)


def test_the_summary_averages_them() -> None:
    truth = rows((0, 8, 0))
    summary = summarize([case_metrics(rows((0, end, 0)), truth, SPACING_MM) for end in (1, 2)])
    # 7 and 6 voxels too few; IoU 0.125 and 0.25.
    assert summary["volume_difference_ml"] == pytest.approx(6.5 * 0.024)
    assert summary["lesion_f1_overlap"] == 1.0
    assert summary["lesion_f1_iou25"] == 0.5


def test_many_lesions_in_a_large_volume_are_counted() -> None:
    rng = np.random.default_rng(0)
    noise, truth = torch.from_numpy(rng.random((96, 96, 96)) < 0.02), torch.zeros(96, 96, 96, dtype=torch.bool)
    truth[10:20, 10:20, 10:20] = True
    assert 0 < lesion_f1(noise, truth)["lesion_f1_overlap"] < 0.01
