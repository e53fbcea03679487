"""Memory of a process that computes on a CPU."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# The numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for its next allocation; nothing happens without glibc.

    By default glibc gives every large tensor back to the system when it is freed, and the next step pays for fresh,
    zeroed pages again: hundreds of thousands of page faults in a training step. The step's peak stays the same, but
    other processes get nothing back before this one ends.

    Returns:
        whether the allocator took the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc, or no C library to be asked at all (Windows)
        return False
    # No tensor gets a mapping of its own, which would go with it; the top of the heap is never given back.
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
