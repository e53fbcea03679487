"""The pool of simulated volumes: which cases it holds after each epoch, resumed or not, and what a case becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor

from bundle.data import SimulatedSliceDataset, SliceDataset, SliceSampler, simulated_slices
from bundle.data.simulate import Head, SimulatedCase, SimulatedCases
from bundle.errors import InputError
from bundle.mni import atlas_grid
from bundle.transforms import VolumePreprocessing

SPACING_MM = 4.0
DEPTH = 48
"""Slices of 4 mm of the 189 mm of the grid."""


class CodedCases(Sequence[SimulatedCase]):
    """Quick ones: case ``n`` has its lesion in slice ``n`` of 4 mm, and no file, head or network behind it."""

    def __init__(self, cases: int) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return self.cases

    def __getitem__(self, index: int) -> SimulatedCase:  # type: ignore[override]
        number = range(self.cases)[index]
        # Less than the grid, and part of the brain's place; beyond it there is nothing.
        label = np.zeros((100, 100, 189), dtype=np.uint8)
        # The centre of slice n of 4 mm is that of voxel 4 n of 1 mm.
        label[80:, 80:, max(4 * number - 2, 0) : 4 * number + 2] = 1
        image = np.zeros(label.shape, dtype=np.float32)
        image[40:, 40:] = 1 + label[40:, 40:]
        return SimulatedCase(image, label, {"number": number})


@pytest.fixture
def preprocessing() -> VolumePreprocessing:
    return VolumePreprocessing(spacing_mm=SPACING_MM, slice_size=DEPTH, space="mni")


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads in place of processes: they start at once."""
    threads = torch.get_num_threads()

    def pool(workers: int, _: object, initializer: object, arguments: tuple) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers, initializer=initializer, initargs=arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated_slices, "ProcessPoolExecutor", pool)
    yield
    torch.set_num_threads(threads)


def numbers(dataset: SliceDataset) -> list[int]:
    """The case in each place of the pool."""
    return [int(volume["label"].flatten(1).any(dim=1).nonzero()[0]) for volume in dataset.volumes]


def dataset_of(cases: int, preprocessing: VolumePreprocessing, **arguments: object) -> SimulatedSliceDataset:
    return SimulatedSliceDataset(CodedCases(cases), preprocessing, progress=False, **arguments)  # type: ignore[arg-type]


def train(dataset: SimulatedSliceDataset, epochs: int, done: int = 0) -> list[list[int]]:
    """The pool in each epoch, of a training that goes on after ``done`` epochs."""
    pools: list[list[int]] = []
    engine = Engine(lambda engine, batch: None)
    dataset.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: pools.append(numbers(dataset)))
    if done:
        engine.load_state_dict({"iteration": done, "epoch_length": 1, "max_epochs": epochs})
    engine.run([0], max_epochs=epochs, epoch_length=1)
    return pools


# The pool


@pytest.mark.usefixtures("in_threads")
def test_each_epoch_replaces_the_oldest_cases(preprocessing: VolumePreprocessing) -> None:
    dataset = dataset_of(20, preprocessing, volumes=4, renewed=1)
    assert numbers(dataset) == [0, 1, 2, 3]
    assert train(dataset, 6) == [[0, 1, 2, 3], [4, 1, 2, 3], [4, 5, 2, 3], [4, 5, 6, 3], [4, 5, 6, 7], [8, 5, 6, 7]]
    assert numbers(dataset) == [8, 9, 6, 7]  # after the last


@pytest.mark.usefixtures("in_threads")
def test_a_pool_that_begins_small_grows_until_it_is_full(preprocessing: VolumePreprocessing) -> None:
    dataset = dataset_of(20, preprocessing, volumes=5, renewed=2, first=1)
    assert numbers(dataset) == [0]
    assert train(dataset, 4) == [[0], [0, 1, 2], [0, 1, 2, 3, 4], [5, 6, 2, 3, 4]]
    assert numbers(dataset) == [5, 6, 7, 8, 4]  # after the last


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("done", [1, 2, 3, 4, 5, 6])
def test_a_resumed_training_goes_on_with_the_pool_as_it_had_grown(
    done: int, preprocessing: VolumePreprocessing
) -> None:
    epochs, sizes = 7, {"volumes": 5, "renewed": 2, "first": 1}
    whole = train(dataset_of(30, preprocessing, **sizes), epochs)
    assert train(dataset_of(30, preprocessing, **sizes), epochs, done) == whole[done:]


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize(
    ("volumes", "renewed", "done"), [(3, 2, 1), (3, 2, 3), (2, 2, 1), (2, 1, 1), (2, 1, 3), (2, 0, 2)]
)
def test_a_resumed_training_goes_on_with_the_same_pools(
    volumes: int, renewed: int, done: int, preprocessing: VolumePreprocessing
) -> None:
    epochs, sizes = 4, {"volumes": volumes, "renewed": renewed}
    whole = train(dataset_of(30, preprocessing, **sizes), epochs)
    resumed = train(dataset_of(30, preprocessing, **sizes), epochs, done)
    assert resumed == whole[done:]
    for before, after in pairwise(whole):
        assert sum(one != other for one, other in zip(before, after, strict=True)) == renewed


@pytest.mark.usefixtures("in_threads")
def test_after_the_last_case_the_first_follow_again(preprocessing: VolumePreprocessing) -> None:
    pools = train(dataset_of(5, preprocessing, volumes=3, renewed=2), 4)
    assert pools == [[0, 1, 2], [3, 4, 2], [1, 4, 0], [1, 2, 3]]


@pytest.mark.usefixtures("in_threads")
def test_lengths_and_lesion_slices_are_those_of_the_pool_at_hand(preprocessing: VolumePreprocessing) -> None:
    dataset = dataset_of(20, preprocessing, volumes=3, renewed=2)
    sampler = SliceSampler(dataset, lesion_fraction=1.0, samples_per_epoch=30)
    for _ in range(2):
        expected = {DEPTH * place + number for place, number in enumerate(numbers(dataset))}
        assert set(sampler) == set(sampler.lesion.tolist()) == expected
        assert all(float(dataset[index]["label"].sum()) > 0 for index in expected)
        train(dataset, 1)
    assert len(dataset) == 3 * DEPTH


# What a case becomes


def by_hand(case: SimulatedCase, preprocessing: VolumePreprocessing) -> SliceDataset:
    """A case on the grid of ATLAS after the steps that follow the registration."""
    affine = torch.as_tensor(atlas_grid()[0])

    def prepare(item: dict) -> dict:
        volumes = {"image": case.image, "label": case.label}
        return preprocessing.after_registration(
            {key: MetaTensor(torch.from_numpy(volume)[None], affine=affine) for key, volume in volumes.items()}
        )

    return SliceDataset([{"image": "", "label": ""}], prepare, progress=False)


def test_processes_hold_the_cases_that_the_simulator_gives(
    block_head: Head, preprocessing: VolumePreprocessing
) -> None:
    """In two processes, after one renewal: cases 2 and 1."""
    cases = SimulatedCases([block_head], None, cases=3, seed=5)
    dataset = SimulatedSliceDataset(cases, preprocessing, volumes=2, renewed=1, workers=2, progress=False)
    engine = Engine(lambda engine, batch: None)
    dataset.attach(engine)
    engine.run([0], max_epochs=1)
    dataset.pool.shutdown()
    assert len(dataset) == 2 * DEPTH
    for place, number in ((0, 2), (1, 1)):
        expected = by_hand(cases[number], preprocessing)
        assert expected.has_lesion.any()
        for index in range(DEPTH):
            sample = dataset[place * DEPTH + index]
            assert torch.equal(sample["image"], expected[index]["image"])
            assert torch.equal(sample["label"], expected[index]["label"])


@pytest.mark.usefixtures("in_threads")
def test_samples_are_augmented_and_have_the_offsets_asked_for(preprocessing: VolumePreprocessing) -> None:
    plain = dataset_of(1, preprocessing, volumes=1, renewed=0)
    changed = dataset_of(
        1, preprocessing, volumes=1, renewed=0, offsets=(-1, 0, 1), augment=lambda sample: sample | {"more": True}
    )
    assert plain[20]["image"].shape == (4, DEPTH, DEPTH)
    assert changed[20]["image"].shape == (3, DEPTH, DEPTH)
    assert torch.equal(changed[20]["image"], plain[20]["image"][1:])
    assert changed[20]["more"]


# Refusals


@pytest.mark.parametrize(("volumes", "renewed"), [(0, 0), (3, 4), (3, -1), (-2, 0)])
def test_sizes_that_contradict_each_other_are_refused(
    volumes: int, renewed: int, preprocessing: VolumePreprocessing
) -> None:
    sentence = f"{volumes} simulated volumes, {renewed} renewed: 0 <= renewed <= volumes is needed."
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        dataset_of(9, preprocessing, volumes=volumes, renewed=renewed)


@pytest.mark.parametrize("first", [0, 4, -1])
def test_more_first_volumes_than_the_pool_holds_or_none_are_refused(
    first: int, preprocessing: VolumePreprocessing
) -> None:
    sentence = f"3 simulated volumes, {first} to begin with: 1 <= first <= volumes is needed."
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        dataset_of(9, preprocessing, volumes=3, renewed=1, first=first)


def test_offsets_that_do_not_rise_evenly_and_native_space_are_refused_before_anything_is_simulated(
    preprocessing: VolumePreprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CodedCases, "__getitem__", lambda self, index: pytest.fail("a case was simulated"))
    with pytest.raises(ValueError, match="offsets must rise in even steps"):
        dataset_of(9, preprocessing, volumes=1, renewed=0, offsets=(1, -1))
    with pytest.raises(ValueError, match=r"There is no ResampleToAtlasd in this preprocessing: its space is native\."):
        dataset_of(9, VolumePreprocessing(space="native"), volumes=1, renewed=0)
