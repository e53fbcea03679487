"""Varied cases as a whole: what they hold, that seeds repeat, and that the lesion is where the label says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, LesionMasks, SimulatedCase, SimulatedCases, Tissue
from bundle.data.simulate.varied import simulate_varied_case

pytestmark = pytest.mark.slow

CASES_ML = (2.0, 10.0, 40.0, 90.0)

RECORDED = {
    "head",
    "mask",
    "further_lesions",
    "contrast",
    "lookalikes",
    "looks",
    "skull_stripped",
    "defaced",
    "acquisition",
    "volume_ml",
}


@pytest.fixture(scope="module")
def cases(template_head: Head, bank: LesionMasks) -> list[SimulatedCase]:
    return [
        simulate_varied_case(template_head, np.random.default_rng(number), bank, volume_ml)
        for number, volume_ml in enumerate(CASES_ML)
    ]


def test_a_case_is_on_the_grid_of_atlas_and_says_what_was_done(cases: list[SimulatedCase]) -> None:
    for case in cases:
        assert (case.image.shape, case.image.dtype) == ((197, 233, 189), np.float32)
        assert (case.label.shape, case.label.dtype) == ((197, 233, 189), np.uint8)
        assert set(np.unique(case.label)) == {0, 1}
        assert case.image.min() == 0
        assert np.isfinite(case.image).all()
        assert case.record.keys() == RECORDED
        assert case.record["volume_ml"] == case.label.sum() / 1000
        assert case.record["skull_stripped"]  # the template has no skull
        assert not case.record["defaced"]


def test_volumes_track_those_asked_for(cases: list[SimulatedCase]) -> None:
    ratios = np.array([case.record["volume_ml"] for case in cases]) / CASES_ML
    assert (ratios > 0.25).all()
    assert (ratios < 4).all()


def test_the_lesion_is_on_the_scan_and_darker_than_the_brain_around(cases: list[SimulatedCase]) -> None:
    for case in cases:
        lesion = case.label > 0
        assert (case.image[lesion] > 0).mean() > 0.97
        around = ndimage.binary_dilation(lesion, iterations=8) & ~ndimage.binary_dilation(lesion, iterations=2)
        assert case.image[lesion].mean() < case.image[around & (case.image > 0)].mean()


def test_each_case_has_a_head_shape_of_its_own(cases: list[SimulatedCase], template_head: Head) -> None:
    """The brains' outlines differ by more than stripping does."""
    brains = [ndimage.binary_fill_holes(case.image > 0) for case in cases]
    extents = np.array(
        [[np.ptp(np.flatnonzero(brain.any(axis=axes))) for axes in ((1, 2), (0, 2))] for brain in brains]
    )
    assert extents.std(axis=0).max() > 2
    heads = [template_head.tissue >= Tissue.CSF, *brains]
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairwise(heads)]
    assert max(dice) < 0.98


def test_the_same_state_gives_the_same_case_and_another_one_another(template_head: Head) -> None:
    first, again, other = (
        simulate_varied_case(template_head, np.random.default_rng(seed), None, 8.0) for seed in (0, 0, 1)
    )
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label.tobytes() == again.label.tobytes()
    assert first.record == again.record
    assert not np.array_equal(first.label, other.label)


def test_a_case_does_not_change_its_head(template_head: Head) -> None:
    assert template_head.image is not None
    before = template_head.image.copy(), template_head.tissue.copy()
    simulate_varied_case(template_head, np.random.default_rng(2), None, 3.0)
    assert np.array_equal(template_head.image, before[0])
    assert np.array_equal(template_head.tissue, before[1])


def test_a_head_with_lookalikes_gets_no_lesion(template_head: Head) -> None:
    head = replace(template_head, lookalikes=True)
    for varied in (False, True):
        for case in SimulatedCases([head], None, cases=2, seed=1, further_lesions=3.0, varied=varied):
            assert not case.label.any()
            assert case.record["mask"] is None
            assert case.record["volume_ml"] == 0


def test_a_healthy_case_is_a_varied_scan_without_lesion(template_head: Head) -> None:
    case = SimulatedCases([template_head], None, cases=1, healthy_fraction=1.0, varied=True)[0]
    assert case.record.keys() == RECORDED
    assert not case.label.any()
    assert case.record["looks"] == []
    assert not np.array_equal(case.image, template_head.image)
