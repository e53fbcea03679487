"""Settings of glibc's memory allocator for computations on a CPU."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory", "return_freed_memory"]

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def _set(*settings: tuple[int, int]) -> bool:
    """Call glibc's mallopt for each setting; return whether all were accepted, which is False without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc, or no C library at all (Windows)
        return False
    return all(mallopt(*setting) for setting in settings)


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next allocation; nothing happens without glibc.

    By default glibc returns every large tensor to the system when it is freed, and the next step has to take new,
    zeroed pages: hundreds of thousands of page faults per training step. The peak does not change, but other processes
    get no memory back before this one ends.

    Returns:
        whether the allocator accepted the settings.
    """
    # No tensor gets its own mapping, which is unmapped when it is freed; the top of the heap is never trimmed.
    return _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> bool:
    """Make this process return every array to the system when it is freed; nothing happens without glibc.

    By default glibc does so for arrays of more than 32 MiB, and for smaller ones only until one of their size is
    freed; the others leave holes in the heap, which grows from volume to volume.

    Returns:
        whether the allocator accepted the settings.
    """
    return _set((_M_MMAP_THRESHOLD, 1 << 20))
