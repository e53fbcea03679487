"""Memory of a process that computes on a CPU."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory", "return_freed_memory"]

# The numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def _set(*settings: tuple[int, int]) -> bool:
    """glibc's mallopt for each; whether all were taken, which nothing is without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc, or no C library to be asked at all (Windows)
        return False
    return all(mallopt(*setting) for setting in settings)


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for its next allocation; nothing happens without glibc.

    By default glibc gives every large tensor back to the system when it is freed, and the next step pays for fresh,
    zeroed pages again: hundreds of thousands of page faults in a training step. The step's peak stays the same, but
    other processes get nothing back before this one ends.

    Returns:
        whether the allocator took the settings.
    """
    # No tensor gets a mapping of its own, which would go with it; the top of the heap is never given back.
    return _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> bool:
    """Lets this process give every array back when it is freed; nothing happens without glibc.

    By default glibc does so with arrays of more than 32 MiB, and with smaller ones only as long as none of their size
    was freed before; the others leave holes in the heap, which grows from volume to volume.

    Returns:
        whether the allocator took the settings.
    """
    return _set((_M_MMAP_THRESHOLD, 1 << 20))
