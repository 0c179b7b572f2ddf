"""One timing at a time on a machine: two that run together measure each other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rcompress.progress import SILENT, Progress


def lock_path() -> Path:
    """The lock's file: one per user, on the machine's own disk (machines may share a home)."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"rcompress-timing-{user}.lock"


@contextmanager
def timing_lock(progress: Progress = SILENT) -> Iterator[None]:
    """Hold the machine for a timing; waits, and says so, while another process of this user times something.

    The system frees the lock of a process that dies.
    """
    lock = FileLock(lock_path())
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress.note("waiting: another rcompress process is timing something on this machine")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
