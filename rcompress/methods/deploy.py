"""From a graph to an engine file: choose the precision in the graph, build, and see what really runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rcompress.artifacts.spec import ModelSpec, Step
from rcompress.engines import Backend, BuildOptions, RunOptions, backend_status, build_engine, load_engine
from rcompress.engines.plan_file import read_sidecar
from rcompress.errors import RcompressError
from rcompress.measure.size import size_bytes
from rcompress.measure.static import graph_metrics, inherited
from rcompress.methods.calibration_cache import CalibrationCache
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.lower_precision import lower_precision, precision_of
from rcompress.methods.post_training import quantization_record, quantize_after_training
from rcompress.methods.quantize import QuantizationReport, QuantizeOptions
from rcompress.methods.quantized_source import ready_for
from rcompress.methods.source_graph import SourceGraph
from rcompress.progress import SILENT, Progress

COMMAND = "build-engine"


@dataclass(frozen=True)
class EngineRequest:
    """What to build: for which backend, how, and for INT8 how to quantize."""

    backend: Backend
    build: BuildOptions = field(default_factory=BuildOptions)
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)


@dataclass(frozen=True)
class Deployed:
    """An engine as built.

    Attributes:
        path: the engine.
        cache: what makes its INT8 graph again without images; None for other precisions.
        report: what was quantized; None likewise.
        executed: convolution and matrix layers by the precision they run in, as the runtime tells, or the
            builder where the engine cannot run here.
        runs_here: whether it can.
        size_bytes, source_bytes: of the engine and of the file it was made from.
    """

    path: Path
    cache: CalibrationCache | None
    report: QuantizationReport | None
    executed: dict[str, int]
    runs_here: bool
    size_bytes: int
    source_bytes: int


def deploy(
    source: SourceGraph,
    spec: ModelSpec | None,
    target: Path,
    request: EngineRequest,
    calibration: CalibrationCache | CalibrationImages | None = None,
    progress: Progress = SILENT,
) -> Deployed:
    """Build ``source`` into ``target``.

    Args:
        spec: the source's description, or what the user said of a foreign graph; None: the engine has none.
        calibration: where INT8 ranges come from; None where the source is quantized already.

    Raises:
        RcompressError: the graph does not allow the precision, or the backend refuses it.
    """
    model, report, cache = source.model, None, None
    if precision_of(source.model) == "int8":
        model = ready_for(source, request.backend, progress)
    elif request.build.precision == "int8":
        if calibration is None:
            raise RcompressError(source.path, "INT8 needs calibration", "name a dataset with --calib")
        quantized, cache = quantize_after_training(
            model, calibration, request.quantize, str(source.path), progress
        )
        model, report = quantized.model, quantized.report
    elif _in_graph(request) and precision_of(source.model) == "fp32":
        model = lower_precision(
            model, "fp16" if request.build.precision == "fp16" else "bf16", str(source.path)
        )
    described = None if spec is None else spec.with_step(_step(source, request, cache, report))
    progress.start(f"building for {request.backend}", 1)
    build_engine(model, described, target, request.backend, request.build, progress)
    return Deployed(
        path=target,
        cache=cache,
        report=report,
        executed=_executed(target, request.backend),
        runs_here=backend_status(request.backend).usable,
        size_bytes=size_bytes(target),
        source_bytes=size_bytes(source.path),
    )


def _in_graph(request: EngineRequest) -> bool:
    """Whether the precision is written into the graph: OpenVINO takes BF16 as a setting instead."""
    precision = request.build.precision
    return precision == "fp16" or (precision == "bf16" and request.backend != "openvino")


def _executed(path: Path, backend: Backend) -> dict[str, int]:
    """What an engine runs: from the loaded engine, or where it cannot be loaded, from its builder."""
    if not backend_status(backend).usable:
        return read_sidecar(path).layers
    engine = load_engine(path, backend, RunOptions(device="auto"))
    try:
        return engine.info.executed
    finally:
        engine.close()


def _step(
    source: SourceGraph,
    request: EngineRequest,
    cache: CalibrationCache | None,
    report: QuantizationReport | None,
) -> Step:
    """The engine's entry in its lineage; the figures are those of the network before it was converted."""
    options: dict[str, Any] = {"backend": request.backend, **asdict(request.build)}
    if cache is not None and report is not None:
        options |= quantization_record(request.quantize, report, cache)
    status = backend_status(request.backend)
    notes = () if status.usable else (f"built here, not run: {status.fault}",)
    return Step(
        COMMAND,
        options,
        parent_name=source.path.name,
        parent_sha256=source.sha256,
        metrics=dict(inherited(graph_metrics(source.model))),
        notes=notes,
    )
