"""Whether freed memory is kept, by the page faults of taking it again."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from bundle import memory

# 256 MiB are 65,536 pages of 4 KiB. The settings hold for a whole process, so each case has one of its own; it loads
# the file alone, because the package would bring torch along.
FAULTS = """
import resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
assert sys.argv[2] == "give back" or keep_freed_memory()
take = lambda: len(b"1" * (256 << 20))
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(what: str) -> int:
    command = [sys.executable, "-c", FAULTS, memory.__file__, what]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc to be set")
def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    assert page_faults("keep") < 100 <= page_faults("give back")


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
