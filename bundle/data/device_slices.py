"""Batches of slices from volumes in the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader

from bundle.data.slice_dataset import SliceDataset, SliceSampler

__all__ = ["DeviceSliceLoader"]

Batch = dict[str, torch.Tensor]


class DeviceSliceLoader(DataLoader):
    """``DataLoader`` of slices that keeps the volumes on the device and makes its batches there.

    A GPU trains on thousands of slices per second, more than worker processes deliver. A volume is copied to the device
    once, and again only when the dataset has renewed it; 98 slices of 96 x 96 take 4.5 MB.

    Args:
        dataset: slices of one size; its own ``augment``, which is for single samples, is not called.
        sampler: order of the dataset's slices in an epoch.
        batch_size: slices in a batch; the last batch of an epoch may have fewer.
        device: device that the volumes are kept on.
        augment: random transforms of a batch, or None.
        drop_last: leave out a smaller last batch.
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
        """Yield batches of ``image`` ``(B, S, H, W)`` and ``label`` ``(B, 1, H, W)``, float32."""
        self._copy(self.dataset.volumes)
        padding = len(self.held[0]["image"]) - len(self.held[0]["label"])
        lengths = torch.tensor([len(volume["label"]) for volume in self.held])
        # For each slice of the dataset the row at which its stack begins when the offsets begin at the padding.
        rows = torch.arange(int(lengths.sum())) + padding * torch.repeat_interleave(lengths)
        window = torch.tensor(self.dataset.offsets) - min(self.dataset.offsets[0], 0)
        order = torch.tensor(list(self.sampler))[: len(self) * self.batch_size]
        for chosen in order.split(self.batch_size):
            stacks = self.slices["image"][(rows[chosen, None] + window).to(self.device)]
            batch = {"image": stacks, "label": self.slices["label"][chosen.to(self.device)].unsqueeze(1).float()}
            yield batch if self.augment is None else self.augment(batch)

    def _copy(self, volumes: list[Batch]) -> None:
        """Concatenate all volumes on the device; those that are there already are taken from there."""
        for name in ("image", "label"):
            there = self.slices[name].split([len(volume[name]) for volume in self.held]) if self.held else ()
            kept = {id(volume[name]): part for volume, part in zip(self.held, there, strict=True)}
            self.slices[name] = torch.cat(
                [kept.get(id(volume[name]), volume[name]).to(self.device) for volume in volumes]
            )
        self.held = list(volumes)
