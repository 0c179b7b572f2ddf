"""Artifacts timed against each other: engines side by side, one record per artifact and batch size."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from rcompress.artifacts.machine import available_cores
from rcompress.artifacts.records import Record
from rcompress.engines import load_engine
from rcompress.engines.base import Backend, Engine, EngineInfo, RunOptions
from rcompress.engines.inputs import random_inputs
from rcompress.engines.probe import libraries
from rcompress.errors import RcompressError
from rcompress.measure.energy import EnergyMeter, energy_j_per_image, energy_meter
from rcompress.measure.latency import Call, Latency, time_interleaved
from rcompress.measure.lock import timing_lock
from rcompress.measure.memory import peak_memory_bytes
from rcompress.measure.static import file_metrics
from rcompress.progress import SILENT, Progress

BUSY_PERCENT = 20.0
MOST_PROBES = 4
PRECISIONS = {"I8": "int8", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class BenchOptions:
    """What to time and how often.

    Attributes:
        batch_sizes: images per call; a graph of a fixed batch is timed at its own.
        warmup, iterations, trials: see `time_interleaved`.
        backend: which runtime, where several run a file.
        run: device, threads, the user's own architecture.
    """

    batch_sizes: tuple[int, ...] = (1, 64)
    warmup: int = 10
    iterations: int | None = None
    trials: int = 5
    backend: Backend | None = None
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class _Candidate:
    """A loaded artifact, the figures that need no run, its peak memory by batch size, its device's meter."""

    name: str
    engine: Engine
    static: dict[str, int]
    peaks: dict[int, int]
    meter: EnergyMeter | str

    def allows(self, batch: int) -> bool:
        return self.engine.info.allows(batch)


def benchmark(
    paths: Sequence[Path], options: BenchOptions = BenchOptions(), progress: Progress = SILENT
) -> list[Record]:
    """Time every artifact at every batch size, all artifacts taking turns within one run per batch size.

    Returns:
        Records of kind ``bench``, by batch size and then in the order of ``paths``; ``latency_speedup`` is
        against the first artifact that runs at that batch size on the same device.

    Raises:
        RcompressError: an artifact cannot be read or run.
    """
    if not paths:
        raise RcompressError("bench", "there is nothing to time", "name at least one artifact")
    with ExitStack() as stack:
        engines = [
            stack.enter_context(closing(load_engine(path, options.backend, options.run))) for path in paths
        ]
        batches = _all_batches(engines, options.batch_sizes, progress)
        conditions = _conditions(options, progress)
        progress.note("measuring peak memory")
        peaks = _peaks(engines, batches, options.run, progress)
        candidates = [
            _candidate(name, engine, peak, options.run)
            for name, engine, peak in zip(distinct_names(paths), engines, peaks, strict=True)
        ]
        _say_missing_energy(candidates, progress)
        records: list[Record] = []
        for batch in batches:
            able = [candidate for candidate in candidates if candidate.allows(batch)]
            records += _timed(able, batch, options, conditions, progress)
    return records


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """File names, with their folders where two files share a name."""
    names = [path.name for path in paths]
    return [str(path) if names.count(path.name) > 1 else path.name for path in paths]


def _peaks(
    engines: Sequence[Engine], batches: Sequence[int], run: RunOptions, progress: Progress
) -> list[dict[int, int]]:
    """Of each engine the peak memory by batch size; several at once on a CPU, a GPU's memory is one for all."""

    def measured(engine: Engine) -> dict[int, int]:
        info = engine.info
        allowed = sorted(batch for batch in batches if info.allows(batch))
        arguments = [str(info.path), info.backend, asdict(run), allowed, libraries(info)]
        found = peak_memory_bytes("rcompress.engines.probe:engine_stages", arguments, _device(info, run))
        return dict(zip(allowed, found, strict=True))

    on_gpu = any(_device(engine.info, run) != "cpu" for engine in engines)
    workers = 1 if on_gpu else min(MOST_PROBES, available_cores())
    with timing_lock(progress), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(measured, engines))


def _candidate(name: str, engine: Engine, peaks: dict[int, int], run: RunOptions) -> _Candidate:
    static = file_metrics(engine.info.path, engine.info.spec, run.arch)
    return _Candidate(name, engine, static, peaks, energy_meter(_device(engine.info, run)))


def _device(info: EngineInfo, run: RunOptions) -> str:
    """The device that really runs it, as torch names it."""
    if info.device == "cpu":
        return "cpu"
    return run.device if run.device.startswith("cuda") else "cuda"


def _say_missing_energy(candidates: Sequence[_Candidate], progress: Progress) -> None:
    for reason in dict.fromkeys(c.meter for c in candidates if isinstance(c.meter, str)):
        progress.note(f"No energy figures: {reason}.")


def _timed(
    candidates: Sequence[_Candidate],
    batch: int,
    options: BenchOptions,
    conditions: dict[str, Any],
    progress: Progress,
) -> list[Record]:
    """One interleaved run at one batch size."""
    progress.note(f"timing batches of {batch}")
    calls: list[tuple[str, Call]] = [
        (candidate.name, candidate.engine.prepare(random_inputs(candidate.engine.info, batch)))
        for candidate in candidates
    ]
    latencies = time_interleaved(calls, options.warmup, options.iterations, options.trials, progress)
    firsts: dict[str, Latency] = {}  # by device: a GPU's time is not held against a CPU's
    records = []
    for candidate, (_, call), timed in zip(candidates, calls, latencies, strict=True):
        first = firsts.setdefault(candidate.engine.info.device, timed)
        latency = replace(timed, speedups=timed.speedups_over(first))
        measured = {**latency.metrics(batch), "peak_memory_bytes": candidate.peaks[batch]}
        if isinstance(candidate.meter, EnergyMeter):
            measured["energy_j_per_image"] = energy_j_per_image(
                call, batch, candidate.meter, progress=progress
            )
        context = {**conditions, "batch_size": batch, "speedup_against": first.name}
        records.append(_record(candidate, latency, measured, context))
    return records


def _record(
    candidate: _Candidate, latency: Latency, measured: dict[str, Any], context: dict[str, Any]
) -> Record:
    info = candidate.engine.info
    return Record(
        kind="bench",
        artifact=candidate.name,
        sha256=info.sha256,
        metrics={**measured, **candidate.static},
        context={
            "backend": info.backend,
            "precision": main_precision(info.executed),
            "executed_layers": info.executed,
            "device": info.device,
            "transfers": "none" if info.device == "cpu" else "excluded",
            "calls": latency.calls,
            **context,
        },
        lineage=info.spec.to_dict()["lineage"] if info.spec else [],
        notes=["inputs are random normal values, which serve for timing alone"],
    )


def main_precision(executed: dict[str, int]) -> str | None:
    """The precision in which most layers run, in the records' word; None where the runtime does not tell."""
    if not executed:
        return None
    most = max(executed, key=lambda precision: executed[precision])
    return PRECISIONS.get(most, most.lower())


def _all_batches(engines: Sequence[Engine], asked: Sequence[int], progress: Progress) -> list[int]:
    """The batch sizes asked for, and in place of those that an engine does not take its nearest, with a word."""
    batches = list(dict.fromkeys(asked))
    for engine in engines:
        nearest = list(dict.fromkeys(map(engine.info.nearest_batch, asked)))
        if set(nearest) != set(asked):
            sizes = " and ".join(map(str, nearest))
            progress.note(f"{engine.info.path.name} does not take all batch sizes: timed at {sizes}.")
        batches += [batch for batch in nearest if batch not in batches]
    return [batch for batch in batches if any(engine.info.allows(batch) for engine in engines)]


def _conditions(options: BenchOptions, progress: Progress) -> dict[str, Any]:
    """What all figures of one run share; says so where the machine is busy with something else."""
    with timing_lock(progress):  # what another timing keeps busy will be over by then
        busy = psutil.cpu_percent(interval=0.3)
    if busy > BUSY_PERCENT:
        progress.note(f"The machine is busy ({busy:.0f} % of its cores): expect noisy figures.")
    clock = psutil.cpu_freq()
    return {
        "bench_run": uuid.uuid4().hex,
        "threads": options.run.cpu_threads,
        "inputs": "random",
        "trials": options.trials,
        "warmup": options.warmup,
        "cpu_clock_mhz": round(clock.current) if clock else None,
        "cpu_busy_percent": busy,
    }
