"""Peak memory of work in a process of its own."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from mmap import mmap

import pytest

from rcompress.errors import RcompressError
from rcompress.measure.memory import forget_peak, peak_held_bytes, peak_memory_bytes

MIB = 1024 * 1024
WORK = """
def growing(first, second):
    yield
    held = bytearray(b"x") * (first * 1024 * 1024)
    yield
    held += bytearray(b"x") * (second * 1024 * 1024)
    yield

def passing(size):
    held = bytearray(b"x") * (20 * 1024 * 1024)
    bytearray(b"x") * (100 * 1024 * 1024)
    yield
    bytearray(b"x") * (size * 1024 * 1024)
    yield

def reusing(block, count):
    yield
    bytearray(b"x") * (block * 1024 * 1024)
    blocks = [bytearray(b"x") * (block * 1024 * 1024) for _ in range(count)]
    del blocks[:-1]
    rest = bytearray(b"x") * (block * (count - 1) * 1024 * 1024)
    yield

def failing():
    yield
    raise ValueError("no such engine")
"""


def touched(size):
    """Pages in memory, which no allocator keeps once they are closed."""
    pages = mmap(-1, size)
    for at in range(0, size, resource.getpagesize()):
        pages[at] = 1
    return pages


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "some_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_stages_grow():
    first, second = peak_memory_bytes("some_work:growing", [64, 96])
    assert 63 * MIB <= first < 80 * MIB
    assert 159 * MIB <= second < 272 * MIB  # while it grows, old and new lie side by side


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget an earlier peak")
def test_what_was_freed_again_counts_and_what_was_there_before_does_not():
    (peak,) = peak_memory_bytes("some_work:passing", [48])
    assert 47 * MIB <= peak < 64 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that keeps freed blocks")
def test_memory_that_was_freed_can_be_used_again():
    (peak,) = peak_memory_bytes("some_work:reusing", [3, 20])
    assert 59 * MIB <= peak < 72 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives freed blocks back")
@pytest.mark.parametrize("keeping", [True, False])
def test_freed_blocks_are_kept_for_the_next_use(keeping):
    code = (
        "import resource\n"
        "from rcompress.measure.memory import keep_freed_blocks\n"
        f"assert not {keeping} or keep_freed_blocks()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytearray(b'x') * (64 * 1024 * 1024)\n"
        "before = faults()\n"
        "for _ in range(10): bytearray(b'x') * (64 * 1024 * 1024)\n"
        "print(faults() - before)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pages = 10 * 64 * MIB // resource.getpagesize()
    assert int(told.stdout) < pages / 100 if keeping else int(told.stdout) > pages / 100


def test_a_failure_says_why():
    with pytest.raises(RcompressError, match="no such engine"):
        peak_memory_bytes("some_work:failing", [])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a process's peak")
def test_a_peak_is_forgotten() -> None:
    with touched(300 * MIB):
        pass
    high = peak_held_bytes("cpu")
    forget_peak("cpu")
    low = peak_held_bytes("cpu")
    assert high - low > 250 * MIB
    with touched(100 * MIB):
        assert peak_held_bytes("cpu") - low == pytest.approx(100 * MIB, rel=0.1)
