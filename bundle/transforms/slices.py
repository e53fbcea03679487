"""Stacks of neighbouring slices (2.5D), axial by default."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from monai.transforms import Transform
from torch.nn import functional as F

__all__ = ["OFFSETS", "Plane", "StackSlices", "from_plane", "pad_slices", "stack_padded", "to_plane"]

Plane = Literal["axial", "coronal", "sagittal"]

OFFSETS = (-2, -1, 0, 1)
"""Two slices before, the slice itself, one after (thesis 3.5.1, 4.4.1; D-UNet)."""

_AXES: dict[Plane, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
_MULTIPLE = 16  # the networks take sizes that are a multiple of it


def to_plane(volume: torch.Tensor, plane: Plane) -> torch.Tensor:
    """Return a volume with the slices of a plane along its last axis.

    Args:
        volume: ``(H, W, D)`` in RAS orientation; H and W are sizes that the networks take.
        plane: ``"axial"`` changes nothing.

    Returns:
        ``(H', W', D')``. The axes of coronal slices are right and superior, those of sagittal ones anterior and
        superior; zeros are added above the head, up to W or to the next multiple of 16 if D is larger.

    Raises:
        ValueError: if there is no such plane.
    """
    if plane not in _AXES:
        raise ValueError(f"There is no plane {plane!r}: choose from {', '.join(get_args(Plane))}.")
    turned = volume.permute(_AXES[plane])
    if plane == "axial":
        return turned
    width, depth = volume.shape[1:]
    rows = max(width, -(-depth // _MULTIPLE) * _MULTIPLE)
    return F.pad(turned, (0, 0, 0, rows - depth))


def from_plane(logits: torch.Tensor, plane: Plane, depth: int) -> torch.Tensor:
    """Return the logits of a plane's slices with the axes of the volume, the inverse of :func:`to_plane`.

    Args:
        logits: ``(out, H', W', D')``.
        plane: of the slices.
        depth: D of the volume.

    Returns:
        ``(out, H, W, D)``.
    """
    back = (1 + _AXES[plane].index(axis) for axis in range(3))
    return logits.permute(0, *back)[..., :depth]


def _step(offsets: Sequence[int]) -> int:
    """Return the distance between neighbouring offsets, which must be even for stacks to be views."""
    steps = {second - first for first, second in pairwise(offsets)} or {1}
    if not offsets or len(steps) > 1 or min(steps) < 1:
        raise ValueError(f"offsets must rise in even steps, like {OFFSETS}, got {tuple(offsets)}.")
    return steps.pop()


def pad_slices(volume: torch.Tensor, offsets: Sequence[int] = OFFSETS) -> torch.Tensor:
    """Return the slices of a volume, slice axis first, with the zero slices that the stacks at its ends need.

    Args:
        volume: ``(H, W, D)``.
        offsets: the stack's slices relative to its own.

    Returns:
        ``(before + D + after, H, W)``, contiguous: the only copy that stacking makes.
    """
    before, after = max(-offsets[0], 0), max(offsets[-1], 0)
    return F.pad(volume.permute(2, 0, 1), (0, 0, 0, 0, before, after)).contiguous()


def stack_padded(padded: torch.Tensor, offsets: Sequence[int] = OFFSETS) -> torch.Tensor:
    """Return the stacks of padded slices, as a view.

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
    """Conversion of a volume to stacks of slices, zero-padded at the ends, as views of one padded copy.

    Args:
        offsets: the stack's slices relative to its own, rising in even steps.

    Raises:
        ValueError: if the offsets do not rise in even steps, or the image is not one 3D volume.
    """

    def __init__(self, offsets: Sequence[int] = OFFSETS) -> None:
        _step(offsets)
        self.offsets = tuple(offsets)

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return the stacks ``(D, S, H, W)`` of a volume ``(1, H, W, D)``."""
        if img.dim() != 4 or img.shape[0] != 1:
            raise ValueError(f"StackSlices takes one volume (1, H, W, D), got {list(img.shape)}.")
        return stack_padded(pad_slices(img[0], self.offsets), self.offsets)
