"""2.5D: a volume as stacks of neighbouring axial slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch.nn import functional as F

__all__ = ["OFFSETS", "StackSlices", "StackSlicesd", "pad_slices", "stack_padded"]

OFFSETS = (-2, -1, 0, 1)
"""Two slices before, the slice itself, one after (thesis 3.5.1, 4.4.1; D-UNet)."""


def _step(offsets: Sequence[int]) -> int:
    """The distance of neighbouring offsets; they must be evenly spaced, or a stack would not be a view."""
    steps = {second - first for first, second in pairwise(offsets)} or {1}
    if not offsets or len(steps) > 1 or min(steps) < 1:
        raise ValueError(f"offsets must rise in even steps, like {OFFSETS}, got {tuple(offsets)}.")
    return steps.pop()


def pad_slices(volume: torch.Tensor, offsets: Sequence[int] = OFFSETS) -> torch.Tensor:
    """The slices of a volume, slice axis first, with the zero slices that the stacks at its ends need.

    Args:
        volume: ``(H, W, D)``.
        offsets: the stack's slices relative to its own.

    Returns:
        ``(before + D + after, H, W)``, contiguous: the only copy that stacking makes.
    """
    before, after = max(-offsets[0], 0), max(offsets[-1], 0)
    return F.pad(volume.permute(2, 0, 1), (0, 0, 0, 0, before, after)).contiguous()


def stack_padded(padded: torch.Tensor, offsets: Sequence[int] = OFFSETS) -> torch.Tensor:
    """Stacks of padded slices, as a view.

    Args:
        padded: ``(before + D + after, ...)`` of :func:`pad_slices`, or any values per slice in that order.
        offsets: as given to :func:`pad_slices`.

    Returns:
        ``(D, S, ...)``: for each slice of the volume its S neighbours in the order of the offsets.
    """
    step = _step(offsets)
    before, after = max(-offsets[0], 0), max(offsets[-1], 0)
    depth = padded.shape[0] - before - after
    windows = padded.unfold(0, offsets[-1] - offsets[0] + 1, 1).narrow(0, before + offsets[0], depth)
    return windows.movedim(-1, 1)[:, ::step]


class StackSlices(Transform):
    """A volume to its stacks of slices, zero-padded at the ends; views of one padded copy, not one copy per offset.

    Args:
        offsets: the stack's slices relative to its own, rising in even steps.

    Raises:
        ValueError: when the offsets do not rise in even steps, or the image is not one 3D volume.
    """

    def __init__(self, offsets: Sequence[int] = OFFSETS) -> None:
        _step(offsets)
        self.offsets = tuple(offsets)

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """``(1, H, W, D)`` to ``(D, S, H, W)``."""
        if img.dim() != 4 or img.shape[0] != 1:
            raise ValueError(f"StackSlices takes one volume (1, H, W, D), got {list(img.shape)}.")
        return stack_padded(pad_slices(img[0], self.offsets), self.offsets)


class StackSlicesd(MapTransform):
    """Dictionary version of :class:`StackSlices`.

    Args:
        keys: the volumes to stack.
        offsets: the stack's slices relative to its own.
    """

    def __init__(self, keys: KeysCollection, offsets: Sequence[int] = OFFSETS) -> None:
        super().__init__(keys)
        self.stack = StackSlices(offsets)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """The data with ``(D, S, H, W)`` in place of the volumes."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.stack(d[key])
        return d
