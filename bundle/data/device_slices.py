"""Batches of slices from volumes that lie on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader

from bundle.data.slice_dataset import SliceDataset, SliceSampler

__all__ = ["DeviceSliceLoader"]

Batch = dict[str, torch.Tensor]


class DeviceSliceLoader(DataLoader):
    """A ``DataLoader`` of slices that holds the volumes on the device and cuts its batches there.

    A GPU trains on thousands of slices a second, more than processes hand over one by one. A volume is copied to the
    device once, and again only when the dataset has renewed it; one of 98 slices of 96 x 96 takes 4.5 MB.

    Args:
        dataset: slices of one size; its own ``augment`` changes single samples and is not called.
        sampler: of the dataset: the order of an epoch.
        batch_size: slices in a batch; an epoch's last batch may have fewer.
        device: where the volumes are held.
        augment: random changes of a whole batch, or None.
        drop_last: leave such a smaller batch out.
    """

    dataset: SliceDataset
    sampler: SliceSampler
    batch_size: int

    def __init__(
        self,
        dataset: SliceDataset,
        sampler: SliceSampler,
        batch_size: int,
        device: str | torch.device,
        augment: Callable[[Batch], Batch] | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__(dataset, batch_size, sampler=sampler, drop_last=drop_last)
        self.device = torch.device(device)
        self.augment = augment
        self.held: list[Batch] = []
        self.slices: Batch = {}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # DataLoader has a class of its own
        """Batches of ``image`` ``(B, S, H, W)`` and ``label`` ``(B, 1, H, W)``, float32."""
        self._hold(self.dataset.volumes)
        padding = len(self.held[0]["image"]) - len(self.held[0]["label"])
        lengths = torch.tensor([len(volume["label"]) for volume in self.held])
        # Of each slice of the dataset the first row of its stack, were its offsets to begin at the padding.
        rows = torch.arange(int(lengths.sum())) + padding * torch.repeat_interleave(lengths)
        window = torch.tensor(self.dataset.offsets) - min(self.dataset.offsets[0], 0)
        order = torch.tensor(list(self.sampler))[: len(self) * self.batch_size]
        for chosen in order.split(self.batch_size):
            stacks = self.slices["image"][(rows[chosen, None] + window).to(self.device)]
            batch = {"image": stacks, "label": self.slices["label"][chosen.to(self.device)].unsqueeze(1).float()}
            yield batch if self.augment is None else self.augment(batch)

    def _hold(self, volumes: list[Batch]) -> None:
        """All volumes one behind the other, those that are there already from where they are."""
        for name in ("image", "label"):
            there = self.slices[name].split([len(volume[name]) for volume in self.held]) if self.held else ()
            kept = {id(volume[name]): part for volume, part in zip(self.held, there, strict=True)}
            self.slices[name] = torch.cat(
                [kept.get(id(volume[name]), volume[name]).to(self.device) for volume in volumes]
            )
        self.held = list(volumes)
