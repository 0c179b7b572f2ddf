"""The timing lock between real processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading

import pytest

from rcompress.measure.lock import lock_path, timing_lock

HOLDER = """
import sys
from rcompress.measure.lock import timing_lock
with timing_lock():
    print("held", flush=True)
    sys.stdin.readline()
"""
WRITER = """
import os, sys, time
from rcompress.measure.lock import timing_lock
for _ in range(5):
    with timing_lock():
        for mark in "<>":
            with open(sys.argv[1], "a") as stream:
                stream.write(mark)
            time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Neither wait for nor hold up timings outside this test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert lock_path().parent == tmp_path


class Notes(list[str]):
    def start(self, description, total): ...

    def advance(self, units=1, **figures): ...

    def note(self, message):
        self.append(message)


def hold() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def wait_for_lock(notes: Notes) -> tuple[threading.Thread, threading.Event]:
    entered = threading.Event()

    def enter() -> None:
        with timing_lock(notes):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    return thread, entered


def test_a_second_timing_waits_and_says_so():
    notes = Notes()
    with hold() as holder:
        thread, entered = wait_for_lock(notes)
        assert not entered.wait(0.5)
        assert len(notes) == 1 and "waiting" in notes[0]
        holder.communicate("\n")
    assert entered.wait(20)
    thread.join()


def test_a_killed_holder_frees_the_lock():
    with hold() as holder:
        thread, entered = wait_for_lock(Notes())
        assert not entered.wait(0.2)
        holder.kill()
    assert entered.wait(20)
    thread.join()


def test_a_free_lock_is_taken_without_a_word():
    notes = Notes()
    with timing_lock(notes):
        assert lock_path().exists()
    assert notes == []


def test_processes_never_hold_it_together(tmp_path):
    log = tmp_path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(log)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert log.read_text() == "<>" * 15
