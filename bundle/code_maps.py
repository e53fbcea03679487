"""Whether a volume is a map of codes, such as tissues or regions, and not a scan."""

from __future__ import annotations

import numpy as np

__all__ = ["is_code_map"]

# Measured on 14 scans that were quantised to 4 to 128 levels, and on maps of 33 to 54 codes: in scans fewer than 0.8 of
# the neighbours have the same of 8 levels or more, and of those that differ most differ by one level; in maps 0.86 and
# more are the same, and of those that differ 0.3 and fewer have codes one after the other.
_FEWEST_LEVELS, _MOST_CODES = 6, 256
_SAME, _SUCCESSIVE, _FEW_CODES = 0.8, 0.6, 16


def is_code_map(volume: np.ndarray) -> bool:
    """Return whether few values stand side by side in even areas, in no order.

    Args:
        volume: ``(H, W, D)``.
    """
    codes = np.unique(volume[::2, ::2, ::2])
    if len(codes) > _MOST_CODES:
        return False
    return len(codes) < _FEWEST_LEVELS or all(_is_even(np.moveaxis(volume, axis, 0)) for axis in range(3))


def _is_even(volume: np.ndarray) -> bool:
    """Return whether neighbours along the first axis are the same, or jump."""
    first, second = volume[:-1:3, ::2, ::2], volume[1::3, ::2, ::2]
    codes, ranks = np.unique(np.stack([first, second]), return_inverse=True)
    ranks = ranks.reshape(2, -1).astype(np.int64)
    steps = np.abs(np.diff(ranks, axis=0)[0])[(ranks != np.bincount(ranks.ravel()).argmax()).all(axis=0)]
    if not len(steps) or (steps == 0).mean() <= _SAME:
        return False
    return len(codes) <= _FEW_CODES or (steps[steps > 0] == 1).mean() < _SUCCESSIVE
