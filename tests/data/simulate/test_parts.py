"""Heads and masks of the training part are never those of the test part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.data import find_images
from bundle.data.simulate.parts import heads_of, lookalike_heads, masks_of
from bundle.errors import InputError
from bundle.files import bundle_root

HEADS = ["one/sub-1_run-1.nii.gz", "one/sub-1_run-2.nii.gz", "two/sub-2.nii.gz", "sub-10_T1w.nii.gz", "chris.nii.gz"]
MASKS = [f"mask_{number:03d}.nii.gz" for number in range(50)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["sub-1_*"], HEADS[:2]),
        (["chris.nii.gz"], HEADS[4:]),
        (["chris*", "sub-2*"], [HEADS[2], HEADS[4]]),
        (["sub-1*"], [HEADS[0], HEADS[1], HEADS[3]]),
        (["sub-1_run-1*", "sub-1_*"], HEADS[:2]),
    ],
    ids=["all files of a person", "one file", "two patterns", "a prefix of two persons", "patterns that overlap"],
)
def test_heads_of_the_patterns_are_for_the_test_and_all_others_for_training(
    patterns: list[str], expected: list[str]
) -> None:
    assert heads_of("test", HEADS, patterns) == expected
    assert heads_of("training", HEADS, patterns) == [file for file in HEADS if file not in expected]


def test_without_patterns_all_heads_are_for_training() -> None:
    assert heads_of("training", HEADS, []) == HEADS


def test_a_pattern_is_of_the_file_name_not_of_its_folder() -> None:
    with pytest.raises(InputError, match=r"^No head is called one\*: a pattern of file names among the heads is"):
        heads_of("training", HEADS, ["sub-2*", "one*"])


@pytest.mark.parametrize(("part", "patterns"), [("test", []), ("training", ["*"])])
def test_a_part_without_heads_is_refused(part: str, patterns: list[str]) -> None:
    with pytest.raises(InputError, match=f"^No head is left for {part}: some, not all, must fit a pattern"):
        heads_of(part, HEADS, patterns)  # type: ignore[arg-type]


@pytest.mark.parametrize(("share", "expected"), [(0.1, 5), (0.2, 10), (0.5, 25)])
def test_masks_are_on_one_side_each_and_always_on_the_same(share: float, expected: int) -> None:
    training, test = masks_of("training", MASKS, share), masks_of("test", MASKS, share)
    assert len(test) == expected
    assert sorted(training + test) == MASKS
    assert not set(training) & set(test)
    assert masks_of("test", MASKS, share) == test
    assert test != MASKS[:expected]  # taken from all over


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5])
def test_a_share_of_masks_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=rf"^test_masks must be between 0 and 1, got {share}\.$"):
        masks_of("training", MASKS, share)


@pytest.mark.parametrize("function", [heads_of, masks_of])
def test_there_is_no_other_part(function: object) -> None:
    with pytest.raises(InputError, match=r"^part must be training, validation, test or test_scans, got tests\.$"):
        function("tests", HEADS, [])  # type: ignore[operator]


def test_without_a_split_nothing_is_for_validation() -> None:
    with pytest.raises(InputError, match=r"^No head is left for validation: some, not all, must fit a pattern"):
        heads_of("validation", HEADS, ["sub-1_*"])
    with pytest.raises(InputError, match=r"^No mask is left for validation: a split with a share of validation_masks"):
        masks_of("validation", MASKS, 0.2)


# A split in a file

PARTS = ("training", "validation", "test", "test_scans")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a split of HEADS, changed by what is given."""

    def write(**changes: object) -> Path:
        heads = {"training": ["sub-1_*"], "validation": ["sub-2.*"], "test": ["chris*"], "unused": ["sub-10_*"]}
        file = tmp_path / "split.json"
        file.write_text(json.dumps({"heads": heads, "test_masks": 0.2, "validation_masks": 0.2} | changes))
        return file

    return write


def test_a_split_gives_each_part_the_heads_of_its_patterns_and_unused_ones_to_none(
    written: Callable[..., Path],
) -> None:
    split = written()
    expected = {"training": HEADS[:2], "validation": [HEADS[2]], "test": [HEADS[4]]}
    assert {part: heads_of(part, HEADS, split=split) for part in PARTS[:3]} == expected  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"^No head is left for test_scans: none fits its patterns in .*split\.json\.$"
    ):
        heads_of("test_scans", HEADS, split=split)


def test_masks_of_a_split_are_in_one_part_each_and_those_of_the_test_are_the_same_without_it(
    written: Callable[..., Path],
) -> None:
    training, validation, test, test_scans = (
        masks_of(part, MASKS, split=written())
        for part in PARTS  # type: ignore[arg-type]
    )
    assert sorted(training + validation + test) == MASKS
    assert (len(training), len(validation), len(test)) == (32, 8, 10)
    assert test == test_scans == masks_of("test", MASKS, 0.2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"heads": {"training": ["sub*"]}},
            r"^chris\.nii\.gz fits no pattern in .*split\.json: a head must be in one part",
        ),
        (
            {"heads": {"training": ["*"], "test": ["chris*"]}},
            r"^chris\.nii\.gz fits the patterns of training and test in .*split\.json: a head must be in one part",
        ),
        (
            {"heads": {"exam": ["*"]}},
            r"split\.json has heads of exam: training, validation, test or test_scans or unused",
        ),
        ({"mask": 0.2}, r"split\.json .*unexpected keyword argument 'mask'"),
    ],
    ids=["a head of no part", "a head of two parts", "an unknown part", "an unknown key"],
)
def test_a_split_that_does_not_say_where_a_head_is_is_refused(
    changes: dict, sentence: str, written: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=sentence):
        heads_of("training", HEADS, split=written(**changes))


def test_a_split_and_test_heads_exclude_each_other(written: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"^Test heads are given by a split or by test_heads, not by both\.$"):
        heads_of("test", HEADS, ["chris*"], written())


# The project's own split


def test_every_shared_head_is_in_one_part_and_those_of_earlier_tests_stay_in_the_test(shared_data: Path) -> None:
    files = find_images([shared_data / folder for folder in ("t1_healthy", "t1_other", "label_maps")])
    split = Path(bundle_root()) / "configs" / "simulation_split.json"
    heads = {part: heads_of(part, files, split=split) for part in PARTS}  # type: ignore[arg-type]
    assert len({file for of_part in heads.values() for file in of_part}) == sum(map(len, heads.values()))
    earlier = ["chris_t1*", "nii2mesh*", *(f"training_seg_{number}*" for number in (17, 18, 19, 20))]
    assert heads["test"] == heads_of("test", files, earlier)
    scans = {
        part: [file for file in of_part if "label_maps" not in file and "openms" not in file]
        for part, of_part in heads.items()
    }
    assert len(scans["test_scans"]) >= 10
    assert len(scans["validation"]) >= 4
    assert len(scans["training"]) >= 10
    assert lookalike_heads(split) == ["openms_*"]
    assert not [file for of_part in heads.values() for file in of_part if "allineate" in file or "_mask" in file]
