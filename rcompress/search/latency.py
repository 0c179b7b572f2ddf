"""Latency of networks that are not written yet: each is built for the named backend and timed there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.engines import Backend, BuildOptions, Engine, RunOptions, backend_status, load_engine
from rcompress.engines.inputs import random_inputs
from rcompress.engines.selection import GRAPH_SUFFIXES
from rcompress.errors import RcompressError
from rcompress.export import onnx_from_module
from rcompress.measure.latency import Latency, time_interleaved
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.deploy import EngineRequest, deploy
from rcompress.methods.placement import Profile
from rcompress.methods.quantize import QuantizeOptions
from rcompress.methods.source_graph import SourceGraph
from rcompress.progress import SILENT, Progress


@dataclass(frozen=True)
class Conditions:
    """What a latency is of.

    Attributes:
        backend: which runtime.
        int8: whether the engine is quantized.
        batch_size: images per call.
        threads: CPU threads, 0 for all cores.
    """

    backend: Backend
    int8: bool = False
    batch_size: int = 1
    threads: int = 0

    def options(self) -> dict[str, Any]:
        """Primitives for the lineage."""
        return asdict(self)

    def __str__(self) -> str:
        threads = RunOptions(threads=self.threads).cpu_threads
        return f"batch {self.batch_size}, {threads} threads, {self.backend}{' in INT8' if self.int8 else ''}"


class Stopwatch:
    """Builds networks as engines in a folder of its own and times them; `close` removes it.

    Args:
        spec: describes the networks, which differ in their widths alone.
        conditions: what to build and how to run it.
        calibration: training images, for INT8.

    Raises:
        RcompressError: the backend writes no engines, or cannot run here.
    """

    def __init__(
        self,
        spec: ModelSpec,
        conditions: Conditions,
        calibration: CalibrationImages | None = None,
        progress: Progress = SILENT,
    ) -> None:
        status = backend_status(conditions.backend)
        if conditions.backend not in GRAPH_SUFFIXES or status.fault is not None:
            fault = status.fault or "builds no engine from a graph"
            raise RcompressError(
                conditions.backend, f"{fault}: no latency to measure", status.remedy or "use openvino"
            )
        self.builds = 0
        self._spec, self._conditions = spec, conditions
        self._calibration, self._progress = calibration, progress
        self._folder = tempfile.TemporaryDirectory(prefix="rcompress-")

    def measure(self, modules: Mapping[str, nn.Module]) -> list[Latency]:
        """Build each of ``modules`` (evaluation mode, CPU) and time them in turns within one run."""
        with ExitStack() as stack:
            calls = []
            for name, module in modules.items():
                engine = stack.enter_context(closing(self._engine(module)))
                inputs = random_inputs(engine.info, self._conditions.batch_size)
                calls.append((name, engine.prepare(inputs)))
            return time_interleaved(calls, progress=self._progress)

    def close(self) -> None:
        """Remove the engines."""
        self._folder.cleanup()

    def _engine(self, module: nn.Module) -> Engine:
        backend = self._conditions.backend
        path = Path(self._folder.name) / f"candidate{self.builds}{GRAPH_SUFFIXES[backend]}"
        graph = SourceGraph(path, onnx_from_module(module, self._spec), self._spec, "")
        deploy(graph, self._spec, path, self._request(), self._calibration, self._progress)
        self.builds += 1
        return load_engine(path, backend, RunOptions("auto", self._conditions.threads))

    def _request(self) -> EngineRequest:
        conditions = self._conditions
        batch = conditions.batch_size
        build = BuildOptions("int8" if conditions.int8 else "fp32", batch_range=(batch, batch, batch))
        profile: Profile = "tensorrt" if GRAPH_SUFFIXES[conditions.backend] == ".plan" else "cpu"
        return EngineRequest(conditions.backend, build, QuantizeOptions(profile))
