"""TensorRT and TensorRT-RTX, which share one Python API: building plans. Running them: `trt_runtime`."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

from rcompress.artifacts.files import require_file, write_atomic
from rcompress.artifacts.spec import ModelSpec
from rcompress.engines.base import BuildOptions, Engine, RunOptions, shape_text
from rcompress.engines.graph_io import element_types, graph_input, shape_of
from rcompress.engines.plan_file import PlanBackend, Sidecar, read_sidecar, sidecar_path, write_plan
from rcompress.engines.status import IMPORT_NAMES, backend_status, gpu_fault
from rcompress.engines.trt_log import executed_precisions, shared_logger
from rcompress.errors import RcompressError
from rcompress.measure.graph import quantized_type
from rcompress.progress import SILENT, Progress


def build(
    model: onnx.ModelProto,
    spec: ModelSpec | None,
    path: Path,
    options: BuildOptions = BuildOptions(),
    progress: Progress = SILENT,
    *,
    backend: PlanBackend = "tensorrt-rtx",
) -> Path:
    """Build a strongly typed plan for the GPU of this machine, or with TensorRT-RTX for ``options.target``.

    The builder's log goes to ``NAME.plan.log``, the lineage to ``NAME.plan.json``.

    Raises:
        RcompressError: the package or a GPU is missing, the graph has unsigned Q/DQ, or the builder refuses.
    """
    _require_builder(path, backend, options)
    refuse_unsigned(model, path, backend)
    trt: Any = import_module(IMPORT_NAMES.get(backend, backend))
    logger = shared_logger(backend)
    logger.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise RcompressError(
            path, f"{backend} cannot parse the graph ({_line(reasons)})", "try another --backend"
        )
    config = _config(trt, builder, options, path)
    timings = _timings(config, options.timing_cache, progress)
    batches = _add_profile(builder, config, model, options, path)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RcompressError(
            path, f"{backend} cannot build it ({_line(logger.errors())})", "try another --backend"
        )
    plan = bytes(memoryview(serialized))
    sidecar = Sidecar(
        backend=backend,
        version=str(trt.__version__),
        target=options.target,
        batch_range=batches,
        layers=executed_precisions(logger.lines()),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        spec=spec,
    )
    write_plan(path, plan, sidecar, "\n".join(logger.lines()) + "\n")
    if options.timing_cache is not None:
        write_atomic(options.timing_cache, bytes(memoryview(timings.serialize())))
    progress.advance()
    return path


def load(path: Path, options: RunOptions = RunOptions(), *, backend: PlanBackend | None = None) -> Engine:
    """Load a plan onto the GPU.

    Args:
        backend: what built it; needed where a plan of another tool has no sidecar.

    Raises:
        RcompressError: the plan or its sidecar is damaged, the CPU is asked for, or package, driver, GPU or pycuda
            are missing.
    """
    require_file(path)
    sidecar = read_sidecar(path) if backend is None or sidecar_path(path).exists() else None
    chosen = sidecar.backend if sidecar is not None else backend
    assert chosen is not None, "read_sidecar has refused a plan without sidecar"
    if backend not in (None, chosen):
        raise RcompressError(path, f"was built by {chosen}", f"use --backend {chosen}")
    if options.device == "cpu":
        raise RcompressError(path, "runs on a GPU alone", "leave --device cpu out")
    status = backend_status(chosen)
    if not status.usable:
        raise RcompressError(path, f"{chosen} cannot run here: {status.fault}", str(status.remedy))
    from rcompress.engines.trt_runtime import TensorRtEngine

    return TensorRtEngine(path, chosen, sidecar, options)


def refuse_unsigned(model: onnx.ModelProto, path: Path, backend: PlanBackend) -> None:
    """TensorRT reads UINT8 activations as INT8 without a word and clips half their range.

    Raises:
        RcompressError: a QuantizeLinear or DequantizeLinear has an unsigned zero point, or by default none.
    """
    types = element_types(model)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if quantized_type(node, types) == onnx.TensorProto.UINT8:
            raise RcompressError(
                path,
                f"the graph is quantized to UINT8 ({node.name or node.output[0]}), which {backend} misreads",
                f"build from the FP32 file: rcompress build-engine FILE.onnx --int8 --backend {backend}",
            )


def _require_builder(path: Path, backend: PlanBackend, options: BuildOptions) -> None:
    status = backend_status(backend)
    if status.version is None:
        raise RcompressError(path, f"{backend}: {status.fault}", str(status.remedy))
    if backend == "tensorrt" and options.target is not None:
        raise RcompressError(path, "TensorRT builds for the GPU of this machine only", "leave --target out")
    if backend == "tensorrt-rtx" and (options.timing_cache is not None or options.hardware_compatible):
        raise RcompressError(
            path,
            "TensorRT-RTX has neither timing caches nor hardware compatibility",
            "leave --timing-cache and --hardware-compatible out",
        )
    if backend == "tensorrt-rtx" and options.sparse_weights:
        raise RcompressError(
            path,
            "TensorRT-RTX builds the same plan whether weights may be sparse or not",
            "leave --sparse-weights out",
        )
    fault = gpu_fault()
    if fault is not None and backend == "tensorrt":
        raise RcompressError(path, f"tensorrt needs a GPU to build: {fault[0]}", fault[1])
    if fault is not None and options.target is None:
        raise RcompressError(path, fault[0], "name the GPU to build for, as in --target sm_86")


def _config(trt: Any, builder: Any, options: BuildOptions, path: Path) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Set by default: FP32 layers would multiply with 10 bits of the mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_compute_capability(trt, options.target, path), 0)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.sparse_weights:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    return config


def _timings(config: Any, file: Path | None, progress: Progress) -> Any:
    """The cache that the build reads and fills, from ``file`` or empty; to be held until the build is over."""
    if file is None:
        return None
    known = file.read_bytes() if file.exists() else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        progress.note(f"{file} holds the timings of another GPU or version: begun anew")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _compute_capability(trt: Any, target: str, path: Path) -> Any:
    """TensorRT-RTX's name for ``sm_86``."""
    name = target.upper().replace("_", "")
    known = [entry for entry in dir(trt.ComputeCapability) if entry.startswith("SM")]
    if name not in known:
        choices = ", ".join(entry.replace("SM", "sm_") for entry in known)
        raise RcompressError(path, f"no GPU is called {target}", f"choose one of {choices}")
    return getattr(trt.ComputeCapability, name)


def _add_profile(
    builder: Any, config: Any, model: onnx.ModelProto, options: BuildOptions, path: Path
) -> tuple[int, int, int]:
    """The batch sizes that the plan will take: the range asked for, or the graph's own fixed one."""
    value = graph_input(model, str(path))
    shape = shape_of(value)
    if any(size is None for size in shape[1:]):
        raise RcompressError(
            path,
            f"the graph takes images of open size ({shape_text(shape)})",
            "export it without preprocessing",
        )
    if shape[0] is not None:
        return shape[0], shape[0], shape[0]
    profile = builder.create_optimization_profile()
    profile.set_shape(value.name, *((batch, *shape[1:]) for batch in options.batch_range))
    config.add_optimization_profile(profile)
    return options.batch_range


def _line(reasons: list[str]) -> str:
    return " ".join(reasons[0].split())[:300] if reasons else "it does not say why"
