"""Latency of anything callable, compared fairly: all candidates take turns within one run."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rcompress.measure.lock import timing_lock
from rcompress.progress import SILENT, Progress

Call = Callable[[], Any]

BURSTS_PER_TRIAL = 5
TRIAL_SECONDS = 0.5
MIN_CALLS, MAX_CALLS = 5, 500


@dataclass(frozen=True)
class Latency:
    """How long one candidate's call takes.

    Attributes:
        name: the candidate's.
        trials_ms: per trial, every call's time in milliseconds.
        speedups: per trial, the first candidate's median over this one's: 2.0 is twice as fast.
    """

    name: str
    trials_ms: tuple[tuple[float, ...], ...]
    speedups: tuple[float, ...]

    @property
    def calls(self) -> int:
        """Timed calls in all trials."""
        return sum(len(trial) for trial in self.trials_ms)

    def speedups_over(self, other: Latency) -> tuple[float, ...]:
        """Per trial of one interleaved run, how many times as fast as ``other`` this one is."""
        pairs = zip(self.trials_ms, other.trials_ms, strict=True)
        return tuple(statistics.median(theirs) / statistics.median(mine) for mine, theirs in pairs)

    @property
    def p50_ms(self) -> float:
        """Median over the calls of all trials."""
        return self.percentile_ms(50)

    def percentile_ms(self, percent: float) -> float:
        """A percentile over the calls of all trials, interpolated between the nearest two."""
        return percentile([call for trial in self.trials_ms for call in trial], percent)

    def metrics(self, images_per_call: int) -> dict[str, float]:
        """The figures in the records' vocabulary; ``..._std`` is the spread over the trials."""
        medians = [statistics.median(trial) for trial in self.trials_ms]
        means = [statistics.fmean(trial) for trial in self.trials_ms]
        rates = [images_per_call * 1000 / mean for mean in means]
        return {
            "latency_p50_ms": self.p50_ms,
            "latency_p90_ms": self.percentile_ms(90),
            "latency_p99_ms": self.percentile_ms(99),
            "latency_p50_ms_std": _spread(medians),
            "latency_mean_ms": statistics.fmean(means),
            "latency_mean_ms_std": _spread(means),
            "throughput_images_per_s": statistics.fmean(rates),
            "throughput_images_per_s_std": _spread(rates),
            "latency_speedup": statistics.median(self.speedups),
            "latency_speedup_low": min(self.speedups),
            "latency_speedup_high": max(self.speedups),
        }


def time_interleaved(
    candidates: Mapping[str, Call] | Sequence[tuple[str, Call]],
    warmup: int = 10,
    iterations: int | None = None,
    trials: int = 5,
    progress: Progress = SILENT,
    trial_seconds: float = TRIAL_SECONDS,
) -> list[Latency]:
    """Time candidates against each other in one run, holding the machine's timing lock.

    A trial gives every candidate its calls in a few short bursts, in turn and in a rotating order, so that a
    change of clock or of load meets all of them alike; ratios are taken within a trial. The first call of a
    burst is not counted: it refills the caches that the previous candidate emptied.

    Args:
        candidates: names and calls that return when their work is done (a GPU's stream synchronised).
        warmup: calls of each before anything is timed.
        iterations: timed calls of each per trial; None: as many as fit into ``trial_seconds``, 5 at least.
        trials: repetitions of the whole, whose spread is reported.
        progress: hears of the wait for the lock alone: a bar that moves takes time from what is timed.
        trial_seconds: a candidate's share of a trial.
    """
    pairs = list(candidates.items()) if isinstance(candidates, Mapping) else list(candidates)
    times: list[list[list[float]]] = [[] for _ in pairs]
    with timing_lock(progress), _no_garbage_collection():
        fitting = [_fitting(_warm_up(call, warmup), trial_seconds) for _, call in pairs]
        counts = fitting if iterations is None else [iterations] * len(pairs)
        for trial in range(trials):
            for mine in times:
                mine.append([])
            for burst in range(BURSTS_PER_TRIAL):
                for position in _rotated(len(pairs), trial + burst):
                    share = _share(counts[position], burst)
                    times[position][trial] += _burst(pairs[position][1], share)
    return _latencies([name for name, _ in pairs], times)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between the closest ranks (Hyndman and Fan's type 7, numpy's default)."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _latencies(names: Sequence[str], times: Sequence[Sequence[Sequence[float]]]) -> list[Latency]:
    reference = [statistics.median(trial) for trial in times[0]] if times else []
    found = []
    for name, trials in zip(names, times, strict=True):
        speedups = tuple(
            first / statistics.median(trial) for first, trial in zip(reference, trials, strict=True)
        )
        found.append(Latency(name, tuple(tuple(trial) for trial in trials), speedups))
    return found


def _warm_up(call: Call, calls: int) -> float:
    """Call at least once; the fastest call's seconds."""
    return min(_burst(call, max(calls, 1), discarded=0)) / 1000


def _burst(call: Call, calls: int, discarded: int = 1) -> list[float]:
    """Milliseconds of each of ``calls`` calls in a row."""
    if not calls:
        return []
    for _ in range(discarded):
        call()
    taken = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - began) / 1e6)
    return taken


def _fitting(seconds: float, trial_seconds: float) -> int:
    """How many calls of ``seconds`` each fit into a trial."""
    return min(MAX_CALLS, max(MIN_CALLS, math.ceil(trial_seconds / max(seconds, 1e-9))))


def _share(calls: int, burst: int) -> int:
    """The calls that fall to one burst, so that all bursts together make ``calls``."""
    return calls * (burst + 1) // BURSTS_PER_TRIAL - calls * burst // BURSTS_PER_TRIAL


def _rotated(count: int, turn: int) -> list[int]:
    return [(position + turn) % count for position in range(count)]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a call is not the candidate's fault."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
