"""OpenVINO on the CPU: the engine is an .xml file with its weights beside it in a .bin.

What must be known at load time travels in the .xml's ``rt_info``: our description under ``rcompress``, and
under ``rcompress_runtime`` the precision to compute in and the SHA-256 of the .bin that belongs to it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil

from rcompress.artifacts.files import require_file, sha256_of, write_atomic
from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.onnx_file import parse_description
from rcompress.artifacts.spec import FORMAT, ModelSpec
from rcompress.engines.base import (
    Array,
    BuildOptions,
    EngineInfo,
    FloatArray,
    Precision,
    RunOptions,
    checked_run,
    require_images,
)
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress

DESCRIPTION_KEY, RUNTIME_KEY = "rcompress", "rcompress_runtime"
MATRIX_LAYERS = {"Convolution", "FullyConnected", "MatMul", "GroupConvolution", "Deconvolution"}
PRECISION_NAMES = {"i8": "I8", "u8": "I8", "f32": "F32", "f16": "F16", "bf16": "BF16"}
COMPILED_SHAPES_KEPT = 2


def build(
    model: onnx.ModelProto,
    spec: ModelSpec | None,
    path: Path,
    options: BuildOptions = BuildOptions(),
    progress: Progress = SILENT,
) -> Path:
    """Convert ``model`` and write ``path`` and the .bin beside it, the .bin first.

    FP16 comes as a graph with FP16 weights. BF16 comes as an FP32 graph, since a BF16 graph overflows in
    OpenVINO 2026.4; the precision is recorded and set when the engine is loaded.

    Raises:
        RcompressError: OpenVINO does not know an operator, or the files cannot be written.
    """
    network = _converted(model, path)
    _note_precision(options.precision, progress)
    if spec is not None:
        network.set_rt_info(json.dumps({"format": FORMAT, "model": spec.to_dict()}), [DESCRIPTION_KEY])
    structure, weights = _serialized(network)
    runtime = {"precision": options.precision, "bin_sha256": hashlib.sha256(weights).hexdigest()}
    network.set_rt_info(json.dumps(runtime), [RUNTIME_KEY])
    structure, weights = _serialized(network)
    write_atomic(path.with_suffix(".bin"), weights)
    return write_atomic(path, structure)


def _converted(model: onnx.ModelProto, path: Path) -> Any:
    """OpenVINO's own form of the graph: convert_model folds what read_model leaves, half of a small file."""
    import openvino

    try:
        return openvino.convert_model(io.BytesIO(model.SerializeToString()))
    except Exception as error:  # the converter's own kinds, beside RuntimeError
        raise RcompressError(
            path, f"OpenVINO cannot convert the graph ({_reason(error)})", "try --backend onnxruntime"
        ) from None


def _note_precision(precision: Precision, progress: Progress) -> None:
    if precision == "fp16" and not computes("FP16"):
        progress.note("This CPU does not compute in FP16: OpenVINO keeps FP16 weights and computes in FP32.")
    if precision == "bf16" and not computes("BF16"):
        progress.note("This CPU does not multiply in BF16: OpenVINO will compute in FP32 here.")


def computes(precision: str) -> bool:
    """Whether OpenVINO computes in ``BF16``, ``FP16``, ... on this CPU rather than in FP32 in its place."""
    import openvino

    return precision in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _serialized(network: Any) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        structure, weights = Path(folder) / "engine.xml", Path(folder) / "engine.bin"
        try:
            openvino.serialize(network, structure, weights)
        except RuntimeError as error:
            raise RcompressError(
                folder, f"OpenVINO cannot write ({_reason(error)})", "free some space"
            ) from None
        return structure.read_bytes(), weights.read_bytes()


class OpenVinoEngine:
    """An OpenVINO model, compiled for each batch size it meets (fixed shapes run faster than free ones)."""

    def __init__(self, path: Path, options: RunOptions = RunOptions()) -> None:
        self._path = path
        self._network, description, precision = _read(path)
        spec = None if description is None else parse_description(path, description)
        self._settings = _settings(options.cpu_threads, precision)
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        value = self._network.input(0)
        shape = tuple(axis.get_length() if axis.is_static else None for axis in value.get_partial_shape())
        compiled = self._request(tuple(size or 1 for size in shape)).get_compiled_model()
        self._info = EngineInfo(
            backend="openvino",
            path=path,
            sha256=sha256_of(path),
            spec=spec,
            input_shape=shape,
            input_dtype=value.get_element_type().to_dtype().name,
            executed=executed_precisions(compiled),
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def run(self, images: Array) -> FloatArray:
        def infer() -> FloatArray:
            results = self._request(images.shape).infer([np.ascontiguousarray(images)], share_inputs=True)
            logits: FloatArray = results[0]
            return logits

        return checked_run(self._info, images, infer)

    def prepare(self, images: Array) -> Callable[[], Any]:
        """The input is bound once; the synchronous call stays in its thread, which a small network notices."""
        import openvino

        require_images(self._info, images)
        request = self._request(images.shape).get_compiled_model().create_infer_request()
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(images), shared_memory=True))

        def call() -> Any:
            return request.infer(share_outputs=True)

        checked_run(self._info, images, lambda: call()[0])
        return call

    def close(self) -> None:
        self._requests.clear()
        self._network = None

    def _request(self, shape: tuple[int, ...]) -> Any:
        """An inference request of the network compiled for ``shape``; the last few are kept."""
        import openvino

        if shape in self._requests:
            self._requests.move_to_end(shape)
            return self._requests[shape]
        network = self._network.clone()
        try:
            network.reshape(list(shape))
            compiled = openvino.Core().compile_model(network, "CPU", self._settings)
        except RuntimeError as error:
            raise RcompressError(
                self._path, f"OpenVINO cannot compile it ({_reason(error)})", "build it again"
            ) from None
        self._requests[shape] = compiled.create_infer_request()
        while len(self._requests) > COMPILED_SHAPES_KEPT:
            self._requests.popitem(last=False)
        return self._requests[shape]


def load(path: Path, options: RunOptions = RunOptions()) -> OpenVinoEngine:
    """Load an .xml (with its .bin) or an .onnx file.

    Raises:
        RcompressError: a file is missing, truncated or belongs to another one.
    """
    return OpenVinoEngine(path, options)


def open_network(path: Path, options: RunOptions = RunOptions()) -> tuple[Any, dict[str, Any]]:
    """The network of an .xml or .onnx file and the settings it is compiled with, for looking inside it.

    Raises:
        RcompressError: as `load`.
    """
    network, _, precision = _read(path)
    return network, _settings(options.cpu_threads, precision)


def _read(path: Path) -> tuple[Any, str | None, Precision]:
    """Network, description and precision of an .xml or .onnx file."""
    import openvino

    require_file(path)
    if path.suffix == ".xml":
        require_file(path.with_suffix(".bin"))
    description = _onnx_description(path) if path.suffix == ".onnx" else None  # refuses what is no graph
    try:
        network = openvino.Core().read_model(path)
    except RuntimeError as error:
        if path.suffix == ".onnx":
            raise RcompressError(
                path, f"OpenVINO cannot read it ({_reason(error)})", "try --backend onnxruntime"
            ) from None
        raise RcompressError(
            path, "is truncated or not an OpenVINO model, or its .bin is", "build it again"
        ) from None
    if path.suffix == ".onnx":
        return network, description, "fp32"
    if not network.has_rt_info([RUNTIME_KEY]):
        return network, None, "fp32"
    try:
        runtime = parse_json(network.get_rt_info([RUNTIME_KEY]).astype(str))
        precision, expected = runtime["precision"], runtime["bin_sha256"]
    except (RuntimeError, ValueError, KeyError, TypeError):
        raise RcompressError(path, "its description is broken", "build it again") from None
    if sha256_of(path.with_suffix(".bin")) != expected:
        raise RcompressError(path.with_suffix(".bin"), f"does not belong to {path.name}", "build it again")
    described = network.has_rt_info([DESCRIPTION_KEY])
    return network, network.get_rt_info([DESCRIPTION_KEY]).astype(str) if described else None, precision


def _onnx_description(path: Path) -> str | None:
    from rcompress.artifacts.onnx_file import METADATA_KEY, read_onnx

    return next((p.value for p in read_onnx(path).model.metadata_props if p.key == METADATA_KEY), None)


def _settings(threads: int, precision: Precision) -> dict[str, Any]:
    """Compile settings; without a precision hint OpenVINO computes FP32 networks in BF16 where it can."""
    hint = "bf16" if precision == "bf16" else "f16" if precision == "fp16" and computes("FP16") else "f32"
    physical = psutil.cpu_count(logical=False)
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_HYPER_THREADING": physical is not None and threads > physical,  # without it fewer would run
    }


def executed_precisions(compiled: Any) -> dict[str, int]:
    """Convolution and matrix layers of a compiled network, counted by the precision they run in."""
    return dict(Counter(precision for kind, precision in runtime_layers(compiled) if kind in MATRIX_LAYERS))


def runtime_layers(compiled: Any) -> list[tuple[str, str]]:
    """(kind, precision) of each node that a compiled network runs."""
    layers = []
    for operation in compiled.get_runtime_model().get_ordered_ops():
        told = operation.get_rt_info()
        precision = told["runtimePrecision"].astype(str).lower()
        layers.append((told["layerType"].astype(str), PRECISION_NAMES.get(precision, precision.upper())))
    return layers


def layers_of(path: Path) -> list[tuple[str, str]]:
    """`runtime_layers` of an .xml or .onnx file, compiled for one image in FP32 where it is not quantized.

    Raises:
        RcompressError: OpenVINO cannot read or compile it.
    """
    engine = OpenVinoEngine(path, RunOptions(threads=1))
    request = engine._request(tuple(size or 1 for size in engine.info.input_shape))
    return runtime_layers(request.get_compiled_model())


def _reason(error: Exception) -> str:
    """The last line that says something of OpenVINO's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
