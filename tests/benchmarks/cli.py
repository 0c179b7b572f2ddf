"""How long ``rcompress --help`` takes beyond starting Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rcompress.cli.output import print_table
from rcompress.measure.latency import time_interleaved
from tests.benchmarks.common import Terminal, effort, latency_cells

ALLOWED_MS = 150


def run(smoke: bool) -> None:
    """Print both times, interleaved."""
    script = Path(sys.executable).with_name("rcompress")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "rcompress --help": [str(script), "--help"],
    }
    calls = {
        name: (lambda command=command: subprocess.run(command, check=True, capture_output=True))
        for name, command in commands.items()
    }
    amount = effort(smoke)
    found = time_interleaved(calls, 2, amount.iterations or 20, amount.trials, Terminal())
    rows = [[latency.name, *latency_cells(latency)] for latency in found]
    more = found[1].p50_ms - found[0].p50_ms
    print_table(
        f"start-up: --help takes {more:.0f} ms more than an empty program (at most {ALLOWED_MS})",
        ["command", "p50 ms", "±"],
        rows,
    )
