"""Whether zeros make a network faster: the dense and the sparse graph timed against each other, engine by engine."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.engines import Backend, BuildOptions, RunOptions, backend_status, build_engine, load_engine
from rcompress.engines.inputs import random_inputs
from rcompress.engines.selection import GRAPH_SUFFIXES
from rcompress.export import export_onnx
from rcompress.measure.latency import Latency, time_interleaved
from rcompress.progress import SILENT, Progress

TRIALS = 5


@dataclass(frozen=True)
class SparseSpeed:
    """Median latency of one image, in ms, and the speed-up over all trials: median, lowest, highest."""

    backend: Backend
    dense_ms: float
    sparse_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where every trial says so, else ``no faster``."""
        if self.speedup_low > 1:
            return "faster"
        return "slower" if self.speedup_high < 1 else "no faster"

    def __str__(self) -> str:
        return (
            f"{self.backend}: {self.dense_ms:.3f} ms dense, {self.sparse_ms:.3f} ms sparse: {self.verdict} "
            f"({self.speedup:.2f}x, {self.speedup_low:.2f}-{self.speedup_high:.2f} over {TRIALS} trials)"
        )


def sparse_speed(
    dense: nn.Module,
    sparse: nn.Module,
    spec: ModelSpec,
    run: RunOptions = RunOptions(),
    progress: Progress = SILENT,
) -> list[SparseSpeed]:
    """Build both networks for every backend that runs here, in FP32, and time batches of one image in turn.

    TensorRT may use its sparse kernels for both.

    Raises:
        RcompressError: a network cannot be exported or built.
    """
    graphs = [export_onnx(module, spec).model for module in (dense, sparse)]
    found = []
    for backend, suffix in GRAPH_SUFFIXES.items():
        if not backend_status(backend).usable:
            continue
        progress.note(f"timing both with {backend}")
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            calls = []
            for name, graph in zip(("dense", "sparse"), graphs, strict=True):
                path = Path(folder) / f"{name}{suffix}"
                build_engine(graph, spec, path, backend, _options(backend), progress)
                engine = stack.enter_context(closing(load_engine(path, backend, run)))
                calls.append((name, engine.prepare(random_inputs(engine.info, 1))))
            found.append(_speed(backend, time_interleaved(calls, trials=TRIALS, progress=progress)))
    return found


def _options(backend: Backend) -> BuildOptions:
    return BuildOptions(batch_range=(1, 1, 1), sparse_weights=backend == "tensorrt")


def _speed(backend: Backend, latencies: list[Latency]) -> SparseSpeed:
    first, second = (latency.metrics(1) for latency in latencies)
    speedups = (second[f"latency_speedup{ending}"] for ending in ("", "_low", "_high"))
    return SparseSpeed(backend, first["latency_p50_ms"], second["latency_p50_ms"], *speedups)
