"""A dataset of the slices of volumes, and its sampler."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler
from tqdm import tqdm

from bundle.errors import InputError, explain
from bundle.files import replacing
from bundle.transforms.slices import OFFSETS, Plane, StackSlices, pad_slices, stack_padded, to_plane

__all__ = ["SliceDataset", "SliceSampler"]

_KEPT = ("image", "label", "has_lesion")


class SliceDataset(Dataset):
    """Dataset in which every slice of every volume is a sample: its stack of slices and its label.

    Volumes are preprocessed once and kept as one zero-padded copy; the stacks are views of it.

    Args:
        data: the cases, ``{"image": file, "label": file}``.
        transform: deterministic transforms of one case to ``image`` and ``label`` of ``(1, H, W, D)``.
        augment: random transforms of one sample, ``image`` ``(S, H, W)`` and ``label`` ``(1, H, W)``, or None.
        offsets: the stack's slices relative to its own.
        cache_dir: folder to keep the preprocessed volumes in, memory-mapped, instead of in memory.
        progress: show a bar while the volumes are read.
        plane: of the slices.

    Raises:
        InputError: when there is no case, a case cannot be read, or slices differ in size.
        ValueError: when the offsets do not rise in even steps.
    """

    def __init__(
        self,
        data: Sequence[dict],
        transform: Callable[[dict], dict],
        augment: Callable[[dict], dict] | None = None,
        offsets: Sequence[int] = OFFSETS,
        cache_dir: str | Path | None = None,
        progress: bool = True,
        plane: Plane = "axial",
    ) -> None:
        if not data:
            raise InputError("There is no case to train on: the datalist is empty.")
        self.data = list(data)
        self.transform = transform
        self.augment = augment
        self.offsets = StackSlices(offsets).offsets  # checked
        self.plane = plane
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        bar = tqdm(self.data, desc="reading volumes", disable=not progress)
        self.hold([self._cached(item) for item in bar])
        sizes = {volume["label"].shape[1:]: item["image"] for volume, item in zip(self.volumes, data, strict=True)}
        if len(sizes) > 1:
            found = " and ".join(f"{height} x {width} in {image}" for (height, width), image in sorted(sizes.items()))
            raise InputError(
                f"The {plane} slices must be of one size, got {found}: with space mni all volumes have the same size."
            )

    def hold(self, volumes: list[dict[str, torch.Tensor]]) -> None:
        """Replace the volumes.

        Args:
            volumes: of :func:`slices_of`.
        """
        self.volumes = volumes
        self.ends = list(accumulate(len(volume["label"]) for volume in volumes))
        self.has_lesion = torch.cat([volume["has_lesion"] for volume in volumes])

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return ``image`` ``(S, H, W)`` and ``label`` ``(1, H, W)``, float32, of slice ``index`` of all slices."""
        index = range(len(self))[index]  # negative from the end; IndexError beyond
        case = bisect_right(self.ends, index)
        volume = self.volumes[case]
        number = index - (self.ends[case - 1] if case else 0)
        stack = stack_padded(volume["image"], self.offsets)[number]
        sample = {"image": stack.clone(), "label": volume["label"][number].unsqueeze(0).float()}
        return sample if self.augment is None else self.augment(sample)

    def _cached(self, item: dict) -> dict[str, torch.Tensor]:
        if self.cache_dir is None:
            return self._read(item)
        try:
            file = self.cache_dir / f"{self._key(item)}.pt"
        except OSError as error:
            raise InputError(explain(item["image"], error, item["label"])) from error
        if not file.exists():
            with replacing(file) as unfinished:
                torch.save(self._read(item), unfinished)
        return torch.load(file, mmap=True, weights_only=True)

    def _key(self, item: dict) -> str:
        """Return a hash of the files, the transforms, the offsets, the plane and the kept tensors' names."""
        files = [(str(Path(item[key]).resolve()), Path(item[key]).stat().st_mtime_ns) for key in ("image", "label")]
        return hashlib.sha256(repr((files, self.transform, self.offsets, self.plane, _KEPT)).encode()).hexdigest()[:24]

    def _read(self, item: dict) -> dict[str, torch.Tensor]:
        try:
            loaded = self.transform(dict(item))
        except Exception as error:  # whatever a damaged file makes a reader raise
            raise InputError(explain(item["image"], error, item["label"])) from error
        return slices_of(loaded["image"], loaded["label"], self.offsets, self.plane)


def slices_of(
    image: torch.Tensor, label: torch.Tensor, offsets: Sequence[int], plane: Plane = "axial"
) -> dict[str, torch.Tensor]:
    """Return a volume as :class:`SliceDataset` keeps it.

    Args:
        image: ``(1, H, W, D)``.
        label: ``(1, H, W, D)``, above 0 in lesions.
        offsets: the stack's slices relative to its own.
        plane: of the slices.

    Returns:
        ``image``, padded for the stacks, ``label`` ``(D, H, W)``, uint8, and ``has_lesion`` ``(D)``, boolean.
    """
    image, label = (to_plane(torch.as_tensor(volume)[0], plane) for volume in (image, label))
    # Plain tensors: MONAI's metadata would be copied with every sample.
    lesion = (label > 0).permute(2, 0, 1).contiguous().as_subclass(torch.Tensor)
    return {
        "image": pad_slices(image.float(), offsets).as_subclass(torch.Tensor),
        "label": lesion.to(torch.uint8),
        "has_lesion": lesion.flatten(1).any(dim=1),
    }


class SliceSampler(DistributedSampler):
    """Slices in random order, the same for the same seed and epoch, shared evenly between the processes.

    Args:
        dataset: the slices.
        lesion_fraction: fraction of slices with lesion; None takes every slice once, as in the thesis. With a fraction,
            other slices without lesion are drawn each epoch, and slices with lesion are repeated if there are too few.
        samples_per_epoch: samples of all processes in an epoch; None is all slices, or with a fraction twice the slices
            with lesion.
        case_balance: 0 draws all slices with lesion equally often, so that a lesion of forty slices is seen ten times
            as often as one of four; 1 draws all cases equally often; in between, a slice's weight is the number of its
            case's lesion slices to the power of ``-case_balance``. Above 0, slices are drawn with replacement, and
            ``lesion_fraction`` is needed.
        shuffle: random order.
        seed: of the order.

    Raises:
        InputError: when a fraction is not 0..1, or the data have no slices of a kind that is to be drawn.
    """

    dataset: SliceDataset

    def __init__(
        self,
        dataset: SliceDataset,
        lesion_fraction: float | None = None,
        samples_per_epoch: int | None = None,
        case_balance: float = 0.0,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        rank, processes = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        super().__init__(dataset, num_replicas=processes, rank=rank, shuffle=shuffle, seed=seed)
        self.lesion_fraction = lesion_fraction
        self.case_balance = case_balance
        if not 0 <= case_balance <= 1 or (case_balance and lesion_fraction is None):
            raise InputError(f"case_balance must be 0..1 and needs a lesion_fraction, got {case_balance}.")
        if lesion_fraction is not None:
            if not 0 <= lesion_fraction <= 1:
                raise InputError(f"lesion_fraction must be 0..1 or null, got {lesion_fraction}.")
            if (lesion_fraction > 0 and not len(self.lesion)) or (lesion_fraction < 1 and not len(self.empty)):
                raise InputError(f"lesion_fraction {lesion_fraction} needs slices with and without lesion.")
        every = len(dataset) if lesion_fraction is None else 2 * len(self.lesion)
        total = samples_per_epoch or every
        self.num_samples = -(-total // processes)
        self.total_size = self.num_samples * processes

    @property
    def lesion(self) -> torch.Tensor:
        """Indices of the slices with lesion, which change when the dataset renews its volumes."""
        return torch.nonzero(self.dataset.has_lesion).flatten()

    @property
    def empty(self) -> torch.Tensor:
        """Indices of the slices without lesion."""
        return torch.nonzero(~self.dataset.has_lesion).flatten()

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = self._draw(generator)
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        return iter(order[self.rank :: self.num_replicas].tolist())

    def _draw(self, generator: torch.Generator) -> torch.Tensor:
        """Return ``total_size`` indices, in which none comes again before all others of its kind have come."""

        def take(pool: torch.Tensor, count: int) -> torch.Tensor:
            times = -(-count // max(len(pool), 1))
            if not self.shuffle:
                return pool.repeat(times)[:count]
            rounds = [pool[torch.randperm(len(pool), generator=generator)] for _ in range(times)]
            return torch.cat(rounds)[:count] if rounds else pool[:0]

        if self.lesion_fraction is None:
            return take(torch.arange(len(self.dataset)), self.total_size)
        with_lesion = round(self.total_size * self.lesion_fraction)
        balanced = self.case_balance > 0 and with_lesion > 0
        lesion = self._draw_balanced(with_lesion, generator) if balanced else take(self.lesion, with_lesion)
        return torch.cat([lesion, take(self.empty, self.total_size - with_lesion)])

    def _draw_balanced(self, count: int, generator: torch.Generator) -> torch.Tensor:
        slices = self.lesion
        cases = torch.bucketize(slices, torch.tensor(self.dataset.ends), right=True)
        weights = torch.bincount(cases)[cases].double() ** -self.case_balance
        return slices[torch.multinomial(weights, count, replacement=True, generator=generator)]
