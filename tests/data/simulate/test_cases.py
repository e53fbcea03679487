"""Simulated cases as a whole: their grid, volume and place, and that a seed gives the same case each time."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bundle.data.simulate import Head, LesionMasks, SimulatedCase, SimulatedCases, Tissue, simulate_case
from bundle.errors import InputError

Lesioned = list[tuple[SimulatedCase, np.ndarray, np.ndarray]]

RECORDED = {
    "head",
    "mask",
    "further_lesions",
    "white_matter_changes",
    "lacunes",
    "skull_stripped",
    "defaced",
    "volume_ml",
}


def simulated(seed: int, head: Head, masks: LesionMasks | None = None) -> SimulatedCase:
    return simulate_case(head, np.random.default_rng(seed), masks, 8.0)


# Cases of the size of ATLAS


def test_a_case_is_on_the_grid_of_atlas_and_says_what_was_done(lesioned: Lesioned, bank: LesionMasks) -> None:
    for case, *_ in lesioned:
        assert (case.image.shape, case.image.dtype) == ((197, 233, 189), np.float32)
        assert (case.label.shape, case.label.dtype) == ((197, 233, 189), np.uint8)
        assert set(np.unique(case.label)) == {0, 1}
        assert case.image.min() == 0
        assert case.record.keys() == RECORDED
        assert case.record["volume_ml"] == case.label.sum() / 1000
        assert case.record["mask"] in {file.rsplit("/", 1)[-1] for file in bank.files}
        assert case.record["skull_stripped"]  # the template has no skull
        assert not case.record["defaced"]


def test_volumes_track_those_asked_for(lesioned: Lesioned, cases_ml: tuple[float, ...]) -> None:
    ratios = np.array([case.record["volume_ml"] for case, *_ in lesioned]) / cases_ml
    assert 0.7 < np.median(ratios) < 1.3
    assert (ratios > 0.25).all()
    assert (ratios < 2.5).all()


def test_lesions_are_in_the_brain(lesioned: Lesioned, template_head: Head) -> None:
    tissue = template_head.tissue
    for case, before, _ in lesioned:
        assert np.isin(tissue[before], (Tissue.GREY, Tissue.WHITE, Tissue.CSF)).all()
        assert np.isin(tissue[before], (Tissue.GREY, Tissue.WHITE)).mean() > 0.85
        assert not case.label[~before].any()
        assert (case.image[case.label > 0] > 0).mean() > 0.99


def test_a_ventricle_that_has_grown_into_the_lesion_is_not_lesion(lesioned: Lesioned) -> None:
    grown = [int((before & (tissue == Tissue.VENTRICLE)).sum()) for _, before, tissue in lesioned]
    assert max(grown) > 50  # it does happen
    for (case, before, tissue), lost in zip(lesioned, grown, strict=True):
        assert not case.label[tissue == Tissue.VENTRICLE].any()
        assert case.label.sum() == before.sum() - lost


def test_lesions_are_darker_than_the_white_matter(lesioned: Lesioned) -> None:
    """Whose median a bias field of up to 0.15 and thick slices move."""
    for case, _, tissue in lesioned:
        lesion = case.label > 0
        white = np.median(case.image[(tissue == Tissue.WHITE) & ~lesion])
        assert white == pytest.approx(1, abs=0.2)
        assert case.image[lesion].mean() < 0.75 * white


# Seeds


def test_the_same_state_gives_the_same_case_and_another_one_another(block_head: Head) -> None:
    first, again, other = (simulated(seed, block_head) for seed in (0, 0, 1))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label.tobytes() == again.label.tobytes()
    assert first.record == again.record
    assert not np.array_equal(first.label, other.label)
    assert first.record != other.record


@pytest.mark.parametrize(
    ("number", "further_lesions", "lesion", "brightness", "along"),
    [
        (0, 0.0, "aaff43be05e40178", 621571.81, (0.88987, 0.80767, 0.32955, 0.99815, 0.88294)),
        (1, 2.0, "52529742040e0a76", 556610.58, (0.87772, 0.85013, 0.30912, 1.07409, 0.57556)),
    ],
)
def test_cases_are_what_they_were_before_there_were_varied_ones(
    number: int, further_lesions: float, lesion: str, brightness: float, along: tuple[float, ...], block_head: Head
) -> None:
    """The label's hash, the sum of the intensities and some of them, at commit edce413."""
    case = SimulatedCases([block_head], None, cases=4, seed=11, further_lesions=further_lesions)[number]
    assert hashlib.sha256(case.label.tobytes()).hexdigest()[:16] == lesion
    assert case.image.sum(dtype=np.float64) == pytest.approx(brightness, abs=0.1)
    assert case.image[45, 55, ::16] == pytest.approx(along, abs=2e-5)


def test_a_case_does_not_change_its_head(block_head: Head) -> None:
    assert block_head.image is not None
    before = block_head.image.copy(), block_head.tissue.copy()
    simulated(2, block_head)
    assert np.array_equal(block_head.image, before[0])
    assert np.array_equal(block_head.tissue, before[1])


def test_a_sequence_gives_each_case_its_own_seed_whatever_is_asked_for_before(block_head: Head) -> None:
    cases = SimulatedCases([block_head], None, cases=4, seed=3)
    assert len(cases) == 4
    second = cases[1]
    assert cases[0].label.tobytes() != second.label.tobytes()
    assert cases[1].image.tobytes() == second.image.tobytes() == cases[-3].image.tobytes()
    longer, other = (SimulatedCases([block_head], None, cases=9, seed=seed)[1] for seed in (3, 4))
    assert longer.image.tobytes() == second.image.tobytes()
    assert other.label.tobytes() != second.label.tobytes()
    with pytest.raises(IndexError):
        cases[4]


def test_cases_take_turns_with_the_heads(block_head: Head) -> None:
    heads = [Head(name, block_head.tissue, block_head.image) for name in ("one", "two", "three")]
    cases = SimulatedCases(heads, None, cases=4, healthy_fraction=1.0)
    assert [case.record["head"] for case in cases] == ["one", "two", "three", "one"]


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_the_share_of_cases_in_scanned_heads_is_met_and_each_head_of_a_kind_is_as_likely(
    share: float, block_head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.data.simulate.cases.simulate_case", lambda head, *_: head.name)
    labels = block_head.tissue.astype(np.int16)
    heads = [Head(name, block_head.tissue, labels=labels) for name in ("map 1", "map 2", "map 3", "map 4")]
    heads += [Head(name, block_head.tissue, block_head.image) for name in ("scan 1", "scan 2")]
    names = list(SimulatedCases(heads, None, cases=1200, scanned_fraction=share))
    for head in heads:
        expected = share / 2 if head.name.startswith("scan") else (1 - share) / 4
        assert names.count(head.name) / 1200 == pytest.approx(expected, abs=0.04 if expected else 0)


def test_a_share_of_scanned_heads_needs_heads_of_both_kinds(block_head: Head) -> None:
    sentence = r"needs heads of both kinds: 1 T1w scans and 0 label maps were given\.$"
    with pytest.raises(InputError, match=sentence):
        SimulatedCases([block_head], None, cases=3, scanned_fraction=0.5)


# Further lesions


def test_further_lesions_are_as_many_and_as_large_as_asked_for(
    block_head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def place(head: Head, masks: LesionMasks | None, volume_ml: float, rng: np.random.Generator) -> tuple:
        asked.append(volume_ml)
        lesion = np.zeros(head.tissue.shape, dtype=bool)
        lesion[tuple(rng.choice(np.argwhere(head.tissue == Tissue.WHITE)))] = True
        return "placed", lesion

    monkeypatch.setattr("bundle.data.simulate.case._place_lesion", place)
    for number in range(15):
        before = len(asked)
        case = simulate_case(block_head, np.random.default_rng(number), volume_ml=50.0, further_lesions=3.0)
        assert case.record["further_lesions"] == len(asked) - before - 1
    assert asked.count(50.0) == 15
    further = [volume_ml for volume_ml in asked if volume_ml != 50.0]
    assert len(further) == pytest.approx(45, abs=4 * 45**0.5)
    assert min(further) >= 0.1
    assert max(further) <= 6
    assert np.median(further) == pytest.approx((0.1 * 6) ** 0.5, rel=0.5)


def test_further_lesions_are_painted_and_in_the_label(block_head: Head) -> None:
    alone, many = (
        simulate_case(block_head, np.random.default_rng(5), volume_ml=1.0, further_lesions=mean) for mean in (0.0, 30.0)
    )
    further = (many.label > 0) & (alone.label == 0)
    assert further.sum() > 3 * alone.label.sum()
    white = np.median(many.image[(block_head.tissue == Tissue.WHITE) & (many.label == 0)])
    assert np.median(many.image[further]) < 0.75 * white


# Cases without lesion


def test_healthy_cases_have_an_empty_label(block_head: Head) -> None:
    case = simulate_case(block_head, np.random.default_rng(0), volume_ml=0, further_lesions=5.0)
    assert not case.label.any()
    assert case.record["volume_ml"] == 0
    assert case.record["mask"] is None
    assert not np.array_equal(case.image, block_head.image)  # it is a scan of its own


def test_the_bank_says_how_large_a_lesion_is_where_nobody_asked(
    template_head: Head, bank: LesionMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "draw_volume_ml", lambda rng: 0.0)
    assert simulate_case(template_head, np.random.default_rng(0), bank).record["volume_ml"] == 0
    assert simulate_case(template_head, np.random.default_rng(0), bank, 8.0).record["volume_ml"] > 0


def test_the_share_of_healthy_cases_is_met(block_head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []
    monkeypatch.setattr(
        "bundle.data.simulate.cases.simulate_case", lambda head, rng, masks, volume_ml, more: asked.append(volume_ml)
    )
    for share, expected in ((0.0, 0), (0.3, 90), (1.0, 300)):
        asked.clear()
        list(SimulatedCases([block_head], None, cases=300, healthy_fraction=share))
        assert asked.count(0.0) == pytest.approx(expected, abs=25 if 0 < share < 1 else 0)
        assert asked.count(0.0) + asked.count(None) == 300


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cases": 0}, r"^At least one case must be simulated, got 0\.$"),
        ({"cases": 3, "healthy_fraction": 1.2}, r"^The share of cases without lesion must be 0\.\.1, got 1\.2\.$"),
        ({"cases": 3, "further_lesions": -1}, r"^The mean number of further lesions must be 0 or more, got -1\.$"),
        ({"cases": 3, "scanned_fraction": 1.5}, r"^The share of cases in scanned heads must be 0\.\.1, got 1\.5\.$"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict, sentence: str, block_head: Head) -> None:
    with pytest.raises(InputError, match=sentence):
        SimulatedCases([block_head], None, **arguments)
