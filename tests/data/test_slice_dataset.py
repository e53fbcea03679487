"""The slice dataset: what its samples hold, what it keeps in memory and on disk; and the order of the sampler."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from monai.data.meta_tensor import MetaTensor

from bundle.data import SliceDataset, SliceSampler
from bundle.errors import InputError
from bundle.transforms import OFFSETS, StackSlices

HEIGHT, WIDTH = 8, 12
DEPTHS = {"a": 5, "b": 1, "c": 9}


def code(case: str, number: int) -> int:
    """The voxel value of a case's slice: 101.. for a, 201.. for b; 0 is padding."""
    return 100 * (1 + list(DEPTHS).index(case)) + number + 1


def coded_case(item: dict) -> dict:
    """A transform without files: slices of one value each, one lesion voxel at (case, slice)."""
    case, depth = item["image"], DEPTHS[item["image"]]
    image = torch.tensor([float(code(case, number)) for number in range(depth)]).expand(1, HEIGHT, WIDTH, depth)
    label = torch.zeros(1, HEIGHT, WIDTH, depth)
    for number in range(depth):
        label[0, list(DEPTHS).index(case), number, number] = 1
    return {"image": image, "label": label}


def coded_dataset(**arguments: object) -> SliceDataset:
    data = [{"image": case, "label": case} for case in DEPTHS]
    return SliceDataset(data, coded_case, progress=False, **arguments)


def storage_bytes(tensors: Sequence[torch.Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


# Samples


def test_every_slice_of_every_volume_is_a_sample_in_order() -> None:
    dataset = coded_dataset()
    own = [int(dataset[index]["image"][2, 0, 0]) for index in range(len(dataset))]
    assert own == [code(case, number) for case, depth in DEPTHS.items() for number in range(depth)]


def test_coronal_samples_go_through_the_volume_from_back_to_front() -> None:
    """Each row of a coronal slice is an axial slice: its code where there is one, then zeros up to 16 rows."""
    dataset = coded_dataset(plane="coronal")
    assert len(dataset) == len(DEPTHS) * WIDTH
    sample = dataset[WIDTH * 2 + 3]  # of c
    assert sample["image"].shape == (4, HEIGHT, 16)
    assert sample["image"][2, 0].int().tolist() == [code("c", number) for number in range(9)] + [0] * 7
    assert sample["label"].nonzero().tolist() == [[0, 2, 3]]  # of case 2 in slice 3


def test_slices_of_several_sizes_are_refused() -> None:
    def growing(item: dict) -> dict:
        return {key: value.expand(1, HEIGHT, WIDTH, -1).repeat(1, 1, 1, 4) for key, value in coded_case(item).items()}

    with pytest.raises(InputError, match="slices must be of one size, got 8 x 16 in b and 8 x 32 in a and"):
        SliceDataset([{"image": case, "label": case} for case in DEPTHS], growing, plane="coronal", progress=False)


def test_a_stack_has_neighbours_of_its_own_volume_only() -> None:
    dataset = coded_dataset()
    stacks = [dataset[index]["image"][:, 3, 4].int().tolist() for index in (0, 2, 4, 5, 6)]
    assert stacks == [
        [0, 0, 101, 102],
        [101, 102, 103, 104],
        [103, 104, 105, 0],  # the last slice of a
        [0, 0, 201, 0],  # the only slice of b
        [0, 0, 301, 302],  # the first slice of c
    ]


def test_stack_and_label_belong_together() -> None:
    dataset = coded_dataset()
    for index in range(len(dataset)):
        sample = dataset[index]
        [[_, case, number]] = torch.nonzero(sample["label"]).tolist()
        assert int(sample["image"][2, 0, 0]) == 100 * (1 + case) + number + 1


def test_a_sample_has_plain_float32_tensors_of_the_network_s_shapes() -> None:
    sample = coded_dataset(offsets=(-1, 0, 1))[7]
    assert sample["image"].shape == (3, HEIGHT, WIDTH)
    assert sample["label"].shape == (1, HEIGHT, WIDTH)
    assert {tensor.dtype for tensor in sample.values()} == {torch.float32}


@pytest.mark.parametrize("offsets", [OFFSETS, (-1, 0, 1), (0,), (-4, -2, 0, 2), (1, 2)])
def test_stacks_are_those_of_the_transform(offsets: tuple[int, ...]) -> None:
    dataset = coded_dataset(offsets=offsets)
    stacks = StackSlices(offsets)(coded_case({"image": "c"})["image"])
    start = DEPTHS["a"] + DEPTHS["b"]
    for number, stack in enumerate(stacks):
        assert torch.equal(dataset[start + number]["image"], stack)


def test_metadata_are_dropped_and_labels_made_binary() -> None:
    def transform(item: dict) -> dict:
        return {
            "image": MetaTensor(torch.ones(1, 4, 4, 3), meta={"filename_or_obj": item["image"]}),
            "label": MetaTensor(torch.tensor([0.0, 1.0, 255.0]).expand(1, 4, 4, 3)),
        }

    dataset = SliceDataset([{"image": "a", "label": "a"}], transform, progress=False)
    for sample in dataset:
        assert {type(tensor) for tensor in sample.values()} == {torch.Tensor}
    assert [float(sample["label"].max()) for sample in dataset] == [0, 1, 1]
    assert dataset.has_lesion.tolist() == [False, True, True]


def test_indices_count_from_the_end_too_and_end_there() -> None:
    dataset = coded_dataset()
    assert torch.equal(dataset[-1]["image"], dataset[len(dataset) - 1]["image"])
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[index]


def test_samples_go_through_the_augmentation() -> None:
    dataset = coded_dataset(augment=lambda sample: sample | {"image": -sample["image"]})
    assert float(dataset[0]["image"][2, 0, 0]) == -101


def test_changing_a_sample_does_not_change_the_dataset() -> None:
    dataset = coded_dataset()
    before = {key: tensor.clone() for key, tensor in dataset[3].items()}
    for tensor in dataset[3].values():
        tensor.fill_(7)
    for key, tensor in dataset[3].items():
        assert torch.equal(tensor, before[key])


# Memory and disk


@pytest.mark.parametrize(
    ("offsets", "padding"), [(OFFSETS, 3), ((0,), 0), ((-4, -2, 0, 2), 6), ((1, 2), 2), (tuple(range(-8, 8)), 15)]
)
def test_memory_is_one_padded_copy_per_volume(offsets: tuple[int, ...], padding: int) -> None:
    dataset = coded_dataset(offsets=offsets)
    slice_pixels, float_bytes = HEIGHT * WIDTH, 4
    images = [volume["image"] for volume in dataset.volumes]
    labels = [volume["label"] for volume in dataset.volumes]
    assert storage_bytes(images) == sum(depth + padding for depth in DEPTHS.values()) * slice_pixels * float_bytes
    assert storage_bytes(labels) == sum(DEPTHS.values()) * slice_pixels


class CountingTransform:
    """Preprocessing that knows how often it ran, and whose text is its setting."""

    def __init__(self, setting: int = 0) -> None:
        self.setting = setting
        self.calls = 0

    def __call__(self, item: dict) -> dict:
        self.calls += 1
        return coded_case({"image": Path(item["image"]).stem})

    def __repr__(self) -> str:
        return f"CountingTransform({self.setting})"


@pytest.fixture
def files(tmp_path: Path) -> list[dict]:
    for case in DEPTHS:
        (tmp_path / f"{case}.nii").touch()
    return [{"image": str(tmp_path / f"{case}.nii"), "label": str(tmp_path / f"{case}.nii")} for case in DEPTHS]


def calls(files: list[dict], cache_dir: Path, setting: int = 0, offsets: Sequence[int] = OFFSETS) -> int:
    """How many volumes a dataset has to preprocess."""
    transform = CountingTransform(setting)
    SliceDataset(files, transform, offsets=offsets, cache_dir=cache_dir, progress=False)
    return transform.calls


def test_samples_from_disk_equal_those_from_memory(files: list[dict], tmp_path: Path) -> None:
    memory = coded_dataset()
    for _ in ("written", "read again"):
        disk = SliceDataset(files, CountingTransform(), cache_dir=tmp_path / "cache", progress=False)
        assert len(disk) == len(memory)
        for index in range(len(memory)):
            for key in ("image", "label"):
                assert torch.equal(disk[index][key], memory[index][key])


def test_changing_a_sample_does_not_change_the_disk(files: list[dict], tmp_path: Path) -> None:
    dataset = SliceDataset(files, CountingTransform(), cache_dir=tmp_path / "cache", progress=False)
    dataset[0]["image"].zero_()
    again = SliceDataset(files, CountingTransform(), cache_dir=tmp_path / "cache", progress=False)
    assert int(again[0]["image"][2, 0, 0]) == int(dataset[0]["image"][2, 0, 0]) == 101


def test_the_disk_is_used_by_the_next_dataset(files: list[dict], tmp_path: Path) -> None:
    assert calls(files, tmp_path / "cache") == len(DEPTHS)
    assert calls(files, tmp_path / "cache") == 0
    assert all(file.suffix == ".pt" for file in (tmp_path / "cache").iterdir())


def test_other_settings_and_offsets_are_kept_apart_on_disk(files: list[dict], tmp_path: Path) -> None:
    assert calls(files, tmp_path / "cache") == len(DEPTHS)
    assert calls(files, tmp_path / "cache", setting=1) == len(DEPTHS)
    assert calls(files, tmp_path / "cache", offsets=(-1, 0, 1)) == len(DEPTHS)
    assert calls(files, tmp_path / "cache") == 0


def test_a_changed_file_is_preprocessed_again(files: list[dict], tmp_path: Path) -> None:
    calls(files, tmp_path / "cache")
    os.utime(files[1]["image"], ns=(1, 1))
    assert calls(files, tmp_path / "cache") == 1


def test_files_of_one_name_in_two_folders_are_kept_apart_on_disk(files: list[dict], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Path(files[0]["image"]).rename(tmp_path / "other" / "a.nii")
    (tmp_path / "a.nii").touch()
    moment = other.stat().st_mtime_ns
    os.utime(tmp_path / "a.nii", ns=(moment, moment))
    calls(files[:1], tmp_path / "cache")
    assert calls([{"image": str(other), "label": str(other)}], tmp_path / "cache") == 1


# Refusals


def test_no_case_is_refused() -> None:
    with pytest.raises(InputError, match=r"^There is no case to train on: the datalist is empty\.$"):
        SliceDataset([], coded_case)


def test_offsets_that_do_not_rise_evenly_are_refused_before_anything_is_read() -> None:
    def never(item: dict) -> dict:
        raise AssertionError(item)

    with pytest.raises(ValueError, match="offsets must rise in even steps"):
        SliceDataset([{"image": "a", "label": "a"}], never, offsets=(1, -1), progress=False)


def test_a_case_that_cannot_be_read_is_named(files: list[dict]) -> None:
    def broken(item: dict) -> dict:
        raise RuntimeError("voxels are missing")

    with pytest.raises(InputError, match=f"^{files[0]['image']} could not be processed: voxels are missing$"):
        SliceDataset(files, broken, progress=False)


@pytest.mark.parametrize("cached", [False, True])
def test_a_missing_file_is_named(files: list[dict], tmp_path: Path, cached: bool) -> None:
    def load(item: dict) -> dict:
        return {"image": Path(item["image"]).read_bytes()}

    Path(files[1]["image"]).unlink()
    with pytest.raises(InputError, match=f"^{files[1]['image']} does not exist\\.$"):
        SliceDataset(files[1:], load, cache_dir=tmp_path / "cache" if cached else None, progress=False)


# The sampler


def dataset_of(lesion: Sequence[int]) -> SliceDataset:
    """Slices with (1) and without (0) lesion."""

    def transform(item: dict) -> dict:
        return {"image": torch.ones(1, 2, 2, len(lesion)), "label": torch.tensor(lesion).expand(1, 2, 2, len(lesion))}

    return SliceDataset([{"image": "a", "label": "a"}], transform, progress=False)


TEN_OF_FIFTY = [int(number % 5 == 0) for number in range(50)]


def epoch_of(sampler: SliceSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    return order


def share(order: list[int]) -> float:
    return sum(TEN_OF_FIFTY[index] for index in order) / len(order)


def test_without_a_share_every_slice_comes_once() -> None:
    order = epoch_of(SliceSampler(dataset_of(TEN_OF_FIFTY)))
    assert sorted(order) == list(range(50))
    assert order != list(range(50))


def test_without_shuffling_slices_come_in_order() -> None:
    assert epoch_of(SliceSampler(dataset_of(TEN_OF_FIFTY), shuffle=False)) == list(range(50))


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.25, 5), (0.5, 10), (0.8, 16), (1.0, 20)])
def test_a_share_is_met_exactly_and_an_epoch_is_twice_the_lesion_slices(fraction: float, expected: int) -> None:
    order = epoch_of(SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=fraction))
    assert len(order) == 20
    assert sum(TEN_OF_FIFTY[index] for index in order) == expected


def test_lesion_slices_are_spread_over_the_epoch() -> None:
    order = epoch_of(SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=0.5, samples_per_epoch=80))
    assert 0.25 < share(order[:40]) < 0.75


@pytest.mark.parametrize("fraction", [None, 0.5, 0.9])
def test_the_number_of_samples_can_be_set(fraction: float | None) -> None:
    order = epoch_of(SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=fraction, samples_per_epoch=30))
    assert len(order) == 30


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_pool_is_exhausted_before_any_of_it_comes_again(shuffle: bool) -> None:
    sampler = SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=0.5, samples_per_epoch=70, shuffle=shuffle)
    counts = Counter(epoch_of(sampler))
    lesion = [counts[index] for index in range(50) if TEN_OF_FIFTY[index]]
    empty = [counts[index] for index in range(50) if not TEN_OF_FIFTY[index]]
    assert sorted(lesion) == [3] * 5 + [4] * 5  # 35 of a pool of 10
    assert sorted(empty) == [0] * 5 + [1] * 35  # 35 of a pool of 40


@pytest.mark.parametrize("fraction", [None, 0.5])
def test_the_order_depends_on_seed_and_epoch_alone(fraction: float | None) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_of(SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=fraction, seed=seed), epoch)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_other_slices_without_lesion_are_drawn_each_epoch() -> None:
    sampler = SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=0.5)
    first, second = ({index for index in epoch_of(sampler, epoch) if not TEN_OF_FIFTY[index]} for epoch in (0, 1))
    assert first != second


def process(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int, **arguments: object) -> SliceSampler:
    """The sampler that one of several processes makes."""
    with monkeypatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: True)
        patch.setattr(dist, "get_rank", lambda: rank)
        patch.setattr(dist, "get_world_size", lambda: processes)
        return SliceSampler(dataset_of(TEN_OF_FIFTY), **arguments)


@pytest.mark.parametrize("shuffle", [True, False])
def test_two_processes_share_the_slices(monkeypatch: pytest.MonkeyPatch, shuffle: bool) -> None:
    first, second = (epoch_of(process(monkeypatch, rank, 2, shuffle=shuffle), 4) for rank in (0, 1))
    assert len(first) == len(second) == 25
    assert sorted(first + second) == list(range(50))


def test_processes_that_do_not_divide_the_slices_repeat_as_few_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [epoch_of(process(monkeypatch, rank, 3)) for rank in range(3)]
    assert [len(order) for order in orders] == [17, 17, 17]
    assert sorted(Counter([*chain(*orders)]).values()) == [1] * 49 + [2]


def test_processes_together_meet_share_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"lesion_fraction": 0.25, "samples_per_epoch": 40}
    orders = [epoch_of(process(monkeypatch, rank, 2, **arguments)) for rank in (0, 1)]
    assert [len(order) for order in orders] == [20, 20]
    assert share([*chain(*orders)]) == 0.25
    assert len({*chain(*orders)}) == 40


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=rf"lesion_fraction must be 0\.\.1 or null, got {fraction}\."):
        SliceSampler(dataset_of(TEN_OF_FIFTY), lesion_fraction=fraction)


@pytest.mark.parametrize(("lesion", "fraction"), [([0, 0, 0], 0.5), ([1, 1, 1], 0.5), ([0, 0], 1.0), ([1, 1], 0.0)])
def test_a_share_of_slices_that_do_not_exist_is_refused(lesion: list[int], fraction: float) -> None:
    with pytest.raises(InputError, match=f"lesion_fraction {fraction} needs slices with and without lesion"):
        SliceSampler(dataset_of(lesion), lesion_fraction=fraction)


@pytest.mark.parametrize(("lesion", "fraction"), [([1, 1, 1], 1.0), ([0, 0, 0], 0.0)])
def test_a_share_of_all_or_nothing_works_where_there_is_nothing_else(lesion: list[int], fraction: float) -> None:
    order = epoch_of(SliceSampler(dataset_of(lesion), lesion_fraction=fraction, samples_per_epoch=6))
    assert sorted(order) == [0, 0, 1, 1, 2, 2]


# The balance of cases


@pytest.fixture(scope="module")
def a_small_and_a_large_lesion() -> SliceDataset:
    """A case of 4 slices with lesion, slices 3 to 6, and one of 40, slices 55 to 94, of 50 slices each."""

    def transform(item: dict) -> dict:
        label = torch.zeros(1, 2, 2, 50)
        first, count = {"small": (3, 4), "large": (5, 40)}[item["label"]]
        label[..., first : first + count] = 1
        return {"image": torch.ones(1, 2, 2, 50), "label": label}

    return SliceDataset([{"image": name, "label": name} for name in ("small", "large")], transform, progress=False)


@pytest.mark.parametrize(
    ("balance", "expected"),
    # A slice weighs n ** -balance, a case n ** (1 - balance): 4 / 44, 2 / (2 + 6.32), 1 / 2.
    [(0.0, 4 / 44), (0.5, 2 / (2 + 40**0.5)), (1.0, 0.5)],
)
def test_the_share_of_a_small_lesion_rises_with_the_balance(
    balance: float, expected: float, a_small_and_a_large_lesion: SliceDataset
) -> None:
    sampler = SliceSampler(
        a_small_and_a_large_lesion, lesion_fraction=0.5, samples_per_epoch=8800, case_balance=balance
    )
    counts = Counter(epoch_of(sampler))
    small, large = (sum(counts[index] for index in span) for span in (range(3, 7), range(55, 95)))
    assert small + large == 4400  # the share of lesion stays
    assert small / (small + large) == pytest.approx(expected, abs=0.03)
    # Within a case all slices are alike.
    for span in (range(3, 7), range(55, 95)):
        drawn = [counts[index] for index in span]
        assert min(drawn) > 0.4 * max(drawn)


def test_a_balanced_order_depends_on_seed_and_epoch_alone(a_small_and_a_large_lesion: SliceDataset) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = SliceSampler(a_small_and_a_large_lesion, lesion_fraction=0.5, case_balance=0.5, seed=seed)
        return epoch_of(sampler, epoch)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize(("balance", "fraction"), [(-0.1, 0.5), (1.1, 0.5), (0.5, None)])
def test_a_balance_out_of_range_or_without_a_share_is_refused(
    balance: float, fraction: float | None, a_small_and_a_large_lesion: SliceDataset
) -> None:
    sentence = rf"^case_balance must be 0\.\.1 and needs a lesion_fraction, got {balance}\.$"
    with pytest.raises(InputError, match=sentence):
        SliceSampler(a_small_and_a_large_lesion, lesion_fraction=fraction, case_balance=balance)


def test_a_balance_needs_no_lesion_in_the_data_when_none_is_asked_for() -> None:
    order = epoch_of(SliceSampler(dataset_of([0, 0, 0]), lesion_fraction=0.0, samples_per_epoch=6, case_balance=0.5))
    assert sorted(order) == [0, 0, 1, 1, 2, 2]
