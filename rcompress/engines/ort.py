"""ONNX Runtime on the CPU: the engine is an .onnx file."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rcompress.artifacts.onnx_file import read_onnx, write_graph
from rcompress.artifacts.spec import ModelSpec
from rcompress.engines.base import Array, BuildOptions, EngineInfo, FloatArray, RunOptions, checked_run
from rcompress.engines.graph_io import dtype_of, element_types, graph_input, shape_of
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress

INTEGER_OPERATORS = {
    "QLinearConv",
    "ConvInteger",
    "QLinearMatMul",
    "QGemm",
    "MatMulInteger",
    "MatMulIntegerToFloat",
}
FLOAT_OPERATORS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def build(
    model: onnx.ModelProto,
    spec: ModelSpec | None,
    path: Path,
    options: BuildOptions = BuildOptions(),
    progress: Progress = SILENT,
) -> Path:
    """Write ``model`` as it is; ONNX Runtime compiles it when it is loaded.

    Raises:
        RcompressError: BF16, for which its CPU provider has no convolution.
    """
    if options.precision == "bf16":
        raise RcompressError(
            path, "ONNX Runtime has no BF16 convolution on the CPU", "use --backend openvino, or --int8"
        )
    if options.precision == "fp16":
        progress.note("ONNX Runtime keeps FP16 weights but computes in FP32 on the CPU: smaller, not faster.")
    return write_graph(path, model, spec)


class OnnxRuntimeEngine:
    """An ONNX Runtime session on the CPU, with all graph optimisations unless ``optimize`` is False."""

    def __init__(self, path: Path, options: RunOptions = RunOptions(), optimize: bool = True) -> None:
        found = read_onnx(path)
        value = graph_input(found.model, str(path))
        self._session, optimized = _session(path, options.cpu_threads, optimize)
        self._input, self._output = value.name, found.model.graph.output[0].name
        self._info = EngineInfo(
            backend="onnxruntime",
            path=path,
            sha256=found.sha256,
            spec=found.spec,
            input_shape=shape_of(value),
            input_dtype=dtype_of(value),
            executed=executed_precisions(optimized),
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def run(self, images: Array) -> FloatArray:
        return checked_run(
            self._info, images, lambda: self._session.run([self._output], {self._input: images})[0]
        )

    def prepare(self, images: Array) -> Callable[[], Any]:
        """Input and output are bound once, so that a call copies nothing."""
        import onnxruntime

        binding = self._session.io_binding()
        held = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images))
        binding.bind_ortvalue_input(self._input, held)
        binding.bind_ortvalue_output(
            self._output, onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(self.run(images)))
        )
        return lambda: self._session.run_with_iobinding(binding)

    def close(self) -> None:
        self._session = None


def load(path: Path, options: RunOptions = RunOptions()) -> OnnxRuntimeEngine:
    """Load an .onnx file.

    Raises:
        RcompressError: truncated, not ONNX, or with an operator that ONNX Runtime lacks.
    """
    return OnnxRuntimeEngine(path, options)


def optimized_graph(path: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime makes of ``path`` on this CPU, all optimisations on.

    Raises:
        RcompressError: it cannot load the file.
    """
    return _session(path, threads=1, optimize=True)[1]


def _session(path: Path, threads: int, optimize: bool) -> tuple[Any, onnx.ModelProto]:
    """A session, and its optimised graph."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        settings.optimized_model_filepath = str(optimized)
        try:
            session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception classes are generated, one for each status code
            reason = str(error).splitlines()[0]
            raise RcompressError(
                path, f"ONNX Runtime cannot load it ({reason})", "try another --backend"
            ) from None
        return session, onnx.load_model(optimized, load_external_data=False)


def executed_precisions(optimized: onnx.ModelProto) -> dict[str, int]:
    """Convolution and matrix layers of an optimised graph, counted by the precision they are computed in."""
    layers = INTEGER_OPERATORS | FLOAT_OPERATORS
    return dict(
        Counter(precision for operator, precision in optimized_layers(optimized) if operator in layers)
    )


def optimized_layers(optimized: onnx.ModelProto) -> list[tuple[str, str]]:
    """(operator, precision) of each node of an optimised graph: I8, F16 (weights) or F32."""
    halves = {name for name, kind in element_types(optimized).items() if kind == onnx.TensorProto.FLOAT16}
    return [
        (
            node.op_type,
            "I8" if node.op_type in INTEGER_OPERATORS else "F16" if halves & set(node.input) else "F32",
        )
        for node in optimized.graph.node
    ]
