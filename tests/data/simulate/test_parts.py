"""Heads and masks of the training part are never those of the test part."""

from __future__ import annotations

import pytest

from bundle.data.simulate.parts import heads_of, masks_of
from bundle.errors import InputError

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
def test_there_is_no_third_part(function: object) -> None:
    with pytest.raises(InputError, match=r"^part must be training or test, got validation\.$"):
        function("validation", HEADS, [])  # type: ignore[operator]
