"""Whether freed memory is kept or returned, measured by the page faults of the next allocation."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from bundle.acceleration import memory

# 256 MiB are 65,536 pages of 4 KiB, 4 MiB are 1,024. The settings hold for a whole process, so each case has one of
# its own; it loads the file alone, because the package would bring torch along.
FAULTS = """
import resource, runpy, sys
assert sys.argv[2] == "as it is" or runpy.run_path(sys.argv[1])[sys.argv[2]]()
take = lambda: len(b"1" * (int(sys.argv[3]) << 20))
take()
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(what: str, megabytes: int) -> int:
    command = [sys.executable, "-c", FAULTS, memory.__file__, what, str(megabytes)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc to be set")
def test_kept_memory_is_allocated_again_without_page_faults() -> None:
    assert page_faults("keep_freed_memory", 256) < 100 <= page_faults("as it is", 256)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc to be set")
def test_returned_memory_causes_page_faults_again() -> None:
    assert page_faults("as it is", 4) < 100 <= page_faults("return_freed_memory", 4)


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
    assert not memory.return_freed_memory()
