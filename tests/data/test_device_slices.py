"""Batches cut on the device are those of a ``DataLoader``, whatever the dataset holds and whenever it changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.utils.data import DataLoader

from bundle.data import DeviceSliceLoader, SliceDataset, SliceSampler
from bundle.data.slice_dataset import slices_of
from bundle.transforms import OFFSETS


def random_volume(depth: int, offsets: Sequence[int], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 5, 6, depth, generator=generator)
    return slices_of(image, (torch.rand(1, 5, 6, depth, generator=generator) > 0.97).float(), offsets)


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> SliceDataset:
    """Three volumes of several depths."""
    offsets = getattr(request, "param", OFFSETS)
    blank = {"image": torch.zeros(1, 5, 6, 2), "label": torch.zeros(1, 5, 6, 2)}
    dataset = SliceDataset([{"image": "a", "label": "a"}], lambda item: blank, offsets=offsets, progress=False)
    dataset.hold([random_volume(depth, offsets, seed) for seed, depth in enumerate((7, 4, 9))])
    return dataset


def assert_equal_epochs(loader: DeviceSliceLoader, dataset: SliceDataset, epoch: int) -> None:
    expected = DataLoader(dataset, loader.batch_size, sampler=SliceSampler(dataset, seed=3))
    for sampler in (loader.sampler, expected.sampler):
        sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # both are SliceSamplers
    pairs = list(zip(loader, expected, strict=True))
    assert len(pairs) == len(loader) == len(expected)
    for batch, other in pairs:
        assert batch.keys() == other.keys()
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            assert torch.equal(batch[name], other[name])


@pytest.mark.parametrize("dataset", [OFFSETS, (-1, 0, 1), (0,), (-4, -2, 0, 2), (1, 2)], indirect=True)
def test_batches_are_those_of_a_data_loader(dataset: SliceDataset) -> None:
    loader = DeviceSliceLoader(dataset, SliceSampler(dataset, seed=3), batch_size=8, device="cpu")
    assert_equal_epochs(loader, dataset, epoch=1)
    assert_equal_epochs(loader, dataset, epoch=2)


def test_a_renewed_volume_and_a_further_one_are_seen_in_the_next_epoch(dataset: SliceDataset) -> None:
    loader = DeviceSliceLoader(dataset, SliceSampler(dataset, seed=3), batch_size=8, device="cpu")
    assert_equal_epochs(loader, dataset, epoch=1)
    first, _, last = dataset.volumes
    dataset.hold([first, random_volume(6, OFFSETS, 8), last, random_volume(3, OFFSETS, 9)])
    loader.sampler.num_samples = loader.sampler.total_size = len(dataset)
    assert_equal_epochs(loader, dataset, epoch=2)


def test_a_last_batch_that_is_smaller_can_be_left_out(dataset: SliceDataset) -> None:
    loader = DeviceSliceLoader(dataset, SliceSampler(dataset, shuffle=False), 8, "cpu", drop_last=True)
    assert [len(batch["image"]) for batch in loader] == [8, 8]
    assert len(loader) == 2


def test_a_whole_batch_is_augmented_at_once(dataset: SliceDataset) -> None:
    sizes: list[int] = []

    def augment(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        sizes.append(len(batch["image"]))
        return batch | {"image": -batch["image"]}

    loader = DeviceSliceLoader(dataset, SliceSampler(dataset, shuffle=False), 8, "cpu", augment)
    assert all((batch["image"] <= 0).all() for batch in loader)
    assert sizes == [8, 8, 4]
