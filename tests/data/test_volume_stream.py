"""The stream of volumes: bad ones are remembered and do not stop the rest."""

from __future__ import annotations

import logging

import pytest

from bundle.data import VolumeStream
from bundle.errors import InputError

CASES = [{"image": name} for name in ("one.nii", "bad.nii", "two.nii", "worse.nii")]


def shout(item: dict) -> dict:
    """Capital letters; refuses what is bad, and changes what it is given."""
    item["image"] = item["image"].upper()
    if item["image"] == "BAD.NII":
        raise InputError("bad.nii is 4D.")
    if item["image"] == "WORSE.NII":
        raise RuntimeError("applying transform")
    return item


def stream(cases: list[dict] | None = None) -> VolumeStream:
    return VolumeStream(CASES if cases is None else cases, shout, progress=False)


def test_good_volumes_come_in_order_and_bad_ones_are_skipped() -> None:
    assert list(stream()) == [{"image": "ONE.NII"}, {"image": "TWO.NII"}]


def test_each_bad_volume_has_one_sentence_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        list(stream())
    assert [record.getMessage() for record in caplog.records] == ["bad.nii is 4D.", "worse.nii does not exist."]


def test_the_failures_end_the_batch_with_all_their_sentences() -> None:
    volumes = stream()
    list(volumes)
    with pytest.raises(InputError) as caught:
        volumes.raise_failures()
    assert str(caught.value).splitlines() == [
        "2 of 4 volumes could not be segmented.",
        "bad.nii is 4D.",
        "worse.nii does not exist.",
    ]


def test_good_volumes_end_the_batch_in_silence() -> None:
    volumes = stream(CASES[:1])
    assert len(list(volumes)) == 1
    volumes.raise_failures()
    assert volumes.failures == []


def test_a_second_pass_is_like_the_first() -> None:
    volumes = stream()
    passes = [(list(volumes), list(volumes.failures)) for _ in range(2)]
    assert passes[0] == passes[1]
    assert CASES[0] == {"image": "one.nii"}


def test_a_keyboard_interrupt_is_not_swallowed() -> None:
    def interrupted(item: dict) -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(VolumeStream(CASES, interrupted, progress=False))


def test_an_empty_datalist_is_refused() -> None:
    with pytest.raises(InputError, match="There is no volume to segment: the datalist is empty"):
        stream([])
