"""Interleaved timing: who is called when, and what is made of the times."""

from __future__ import annotations

import gc
import statistics
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import pytest

from rcompress.measure.latency import BURSTS_PER_TRIAL, Latency, _fitting, percentile, time_interleaved


@pytest.mark.parametrize("percent", [0, 50, 90, 99, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_percentiles_are_numpys(percent, count):
    values = np.random.default_rng(count).exponential(size=count).tolist()
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_figures_of_known_times():
    latency = Latency("b", ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), (2.0, 3.0))
    metrics = latency.metrics(images_per_call=8)
    assert latency.calls == 6
    assert metrics["latency_p50_ms"] == 3.5
    assert metrics["latency_p90_ms"] == pytest.approx(np.percentile([1, 2, 3, 4, 5, 6], 90))
    assert metrics["latency_mean_ms"] == 3.5
    assert metrics["latency_mean_ms_std"] == pytest.approx(statistics.stdev([2, 5]))
    assert metrics["throughput_images_per_s"] == pytest.approx((8000 / 2 + 8000 / 5) / 2)
    assert (metrics["latency_speedup"], metrics["latency_speedup_low"], metrics["latency_speedup_high"]) == (
        2.5,
        2.0,
        3.0,
    )


def test_one_trial_has_no_spread():
    metrics = Latency("a", ((1.0, 2.0),), (1.0,)).metrics(1)
    assert metrics["latency_p50_ms_std"] == metrics["throughput_images_per_s_std"] == 0.0


def test_candidates_take_turns_in_a_rotating_order():
    called: list[str] = []
    names = ("a", "b", "c")
    calls = {name: (lambda name=name: called.append(name)) for name in names}
    found = time_interleaved(calls, warmup=3, iterations=10, trials=2)
    assert [latency.name for latency in found] == list(names)
    assert all(len(trial) == 10 for latency in found for trial in latency.trials_ms)

    timed = called[3 * 3 :]
    bursts = [(name, len(list(group))) for name, group in groupby(timed)]
    per_burst = 10 // BURSTS_PER_TRIAL + 1
    assert called[:9] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    rounds = [[timed[i + k * per_burst] for k in range(3)] for i in range(0, len(timed), 3 * per_burst)]
    assert len(rounds) == 2 * BURSTS_PER_TRIAL
    assert all(sorted(order) == list(names) for order in rounds)
    assert {order[0] for order in rounds} == set(names)
    assert sum(length for _, length in bursts) == len(timed) == 2 * 3 * BURSTS_PER_TRIAL * per_burst


def test_fewer_calls_than_bursts():
    (latency,) = time_interleaved([("a", lambda: None)], warmup=1, iterations=2, trials=3)
    assert [len(trial) for trial in latency.trials_ms] == [2, 2, 2]


def test_speedups_are_paired_within_trials():
    found = time_interleaved([("a", lambda: sum(range(100))), ("b", lambda: sum(range(3000)))], 1, 20, 4)
    medians = [[statistics.median(trial) for trial in latency.trials_ms] for latency in found]
    assert found[0].speedups == (1.0,) * 4
    assert found[1].speedups == tuple(a / b for a, b in zip(*medians, strict=True))


def test_without_iterations_a_trial_has_as_many_calls_as_fit():
    (latency,) = time_interleaved([("a", lambda: None)], warmup=1, trials=1)
    assert latency.calls == 500
    assert [_fitting(seconds, 0.5) for seconds in (0.2, 0.01, 1e-6)] == [5, 50, 500]


def test_the_lock_is_held_while_timing(monkeypatch):
    held: list[int] = []
    seen: list[bool] = []

    @contextmanager
    def lock(_progress):
        held.append(1)
        yield
        held.clear()

    monkeypatch.setattr("rcompress.measure.latency.timing_lock", lock)
    time_interleaved([("a", lambda: seen.append(bool(held)))], 1, 5, 1)
    assert seen and all(seen)
    assert not held


def test_garbage_collection_is_off_only_meanwhile():
    seen: list[bool] = []
    time_interleaved([("a", lambda: seen.append(gc.isenabled()))], 1, 5, 1)
    assert seen and not any(seen)
    assert gc.isenabled()


def test_a_failing_candidate_leaves_everything_as_it_was():
    def fail() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        time_interleaved([("a", fail)], 1, 5, 1)
    assert gc.isenabled()
    assert time_interleaved([("a", lambda: None)], 1, 5, 1)[0].calls == 5  # the lock is free again
