"""Peak memory of a piece of work, measured in a process of its own.

One process cannot tell the peaks of two engines apart: what the first one freed stays in the allocator. So
the work is named (``package.module:function``) and a fresh interpreter runs it:
``python -m rcompress.measure.memory NAME ARGUMENTS``, with the arguments as a JSON list.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from rcompress.errors import RcompressError

Work = Callable[..., Iterator[None]]
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
"""glibc raises this limit of its own as blocks are freed, and then keeps or returns them as it happens: the same
network peaked at 43 MiB or 74. At a fixed limit, the peak is of what is in use."""
KEEP_FREED = {-4: 0, -1: 2**31 - 1}
"""M_MMAP_MAX: no block is mapped by itself; M_TRIM_THRESHOLD: the heap's end stays."""


def peak_memory_bytes(work: str, arguments: list[Any], device: str = "cpu") -> list[int]:
    """Growth of the resident memory (or of the GPU's used memory) while ``work`` runs in a fresh process.

    Args:
        work: ``package.module:function`` of a generator function. It yields once when its libraries are
            imported, then after each stage of its work, the stages growing, with everything still held.
        arguments: what the function is called with: primitives.
        device: ``cpu`` or ``cuda``/``cuda:N``.

    Returns:
        For each stage the growth since the first yield: on the CPU its peak, on a GPU what is held then.

    Raises:
        RcompressError: the process failed.
    """
    command = [sys.executable, "-m", "rcompress.measure.memory", work, json.dumps(arguments), device]
    environment = {**os.environ, **FREED_AT_ONCE}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RcompressError(work, f"its memory cannot be measured ({reason})", "run it by itself to see why")
    return [int(growth) for growth in json.loads(done.stdout.strip().splitlines()[-1])]


def keep_freed_blocks() -> bool:
    """Have this process's glibc keep what is freed for the next use; returns whether there is a glibc that does.

    By itself it gives large blocks back to the system and is given them anew, zeroed page by page: of a training
    step on a CPU that is a tenth.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) for parameter, value in KEEP_FREED.items())


def run_and_watch(work: Work, arguments: list[Any], device: str) -> list[int]:
    """Run ``work`` in this process; its memory growth in bytes, as `peak_memory_bytes` defines it."""
    stages = work(*arguments)
    next(stages)
    if device.startswith("cuda"):
        before = _gpu_used_bytes(device)
        return [max(0, _gpu_used_bytes(device) - before) for _ in stages]
    _forget_peak()
    before = int(psutil.Process().memory_info().rss)
    return [max(0, peak_rss_bytes() - before) for _ in stages]


def peak_rss_bytes() -> int:
    """The largest resident memory that this process ever had.

    Linux is asked through /proc: its ``ru_maxrss`` starts from what the parent process had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    usage = psutil.Process().memory_info()
    if hasattr(usage, "peak_wset"):
        return int(usage.peak_wset)
    import resource  # absent on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def forget_peak(device: str) -> None:
    """`peak_held_bytes` is to tell of what comes from now on."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        _forget_peak()


def peak_held_bytes(device: str) -> int:
    """What this process held at most since `forget_peak`, libraries and data included.

    On a CPU its resident memory (outside Linux: since it began), on a GPU what PyTorch's tensors took there.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_rss_bytes()


def _forget_peak() -> None:
    """Importing the libraries may have peaked above what they keep; Linux can reset the mark."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _gpu_used_bytes(device: str) -> int:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(total) - int(free)


def _main() -> None:
    name, arguments, device = sys.argv[1:]
    module, _, function = name.partition(":")
    work: Work = getattr(import_module(module), function)
    print(json.dumps(run_and_watch(work, json.loads(arguments), device)))


if __name__ == "__main__":
    _main()
