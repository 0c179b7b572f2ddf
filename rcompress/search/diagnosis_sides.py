"""The two artifacts of a diagnosis, opened so that one can look inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from rcompress.artifacts.files import require_file
from rcompress.artifacts.spec import ModelSpec
from rcompress.engines import RunOptions, load_engine
from rcompress.engines.base import EngineInfo, shape_text
from rcompress.engines.graph_io import dtype_of, element_types, graph_input, shape_of
from rcompress.errors import RcompressError
from rcompress.methods.graph_prepare import prepare_graph
from rcompress.methods.source_graph import open_graph
from rcompress.search.inner_tensors import GraphProbe, OpenVinoProbe, OutputProbe, Probe

OUTPUT = "logits"
HALVES = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Side:
    """One of the two artifacts.

    Attributes:
        path, sha256: the file.
        spec: what it says of itself, None where it says nothing.
        graph: its ONNX graph (of a checkpoint, as exported); None: an engine, which has none.
        probe: runs it and shows tensors.
        output: the name of its logits.
        input_dtype, input_shape: of its input; None: a free axis.
    """

    path: Path
    sha256: str
    spec: ModelSpec | None
    graph: onnx.ModelProto | None
    probe: Probe
    output: str
    input_dtype: str
    input_shape: tuple[int | None, ...]


def open_side(path: Path, run: RunOptions = RunOptions()) -> Side:
    """Open a .pth, .onnx, .xml or .plan file.

    A checkpoint is exported and an FP32 graph made ready as quantization does it, so that tensors have the names
    that they have in the quantized graph.

    Raises:
        RcompressError: it cannot be read or run.
    """
    require_file(path)
    if path.suffix in (".pth", ".onnx"):
        return _graph_side(path, run)
    engine = load_engine(path, None, run)
    info = engine.info
    if path.suffix != ".xml":
        return _engine_side(info, OutputProbe(engine, OUTPUT), OUTPUT)
    engine.close()
    probe = OpenVinoProbe(path, run)
    return _engine_side(info, probe, probe.output)


def require_comparable(first: Side, second: Side) -> ModelSpec:
    """What says how images are prepared for both.

    Raises:
        RcompressError: neither says it, they take different inputs, tell other classes apart, or have no
            history in common.
    """
    spec = first.spec or second.spec
    if spec is None:
        raise RcompressError(
            first.path,
            f"says nothing of its images, nor does {second.path.name}",
            "give a file written by rcompress",
        )
    inputs = [(side.input_dtype, side.input_shape[1:]) for side in (first, second)]
    if inputs[0] != inputs[1]:
        said = [f"{side.input_dtype} {shape_text(side.input_shape)}" for side in (first, second)]
        raise RcompressError(
            second.path,
            f"takes {said[1]}, {first.path.name} {said[0]}",
            "compare files that take the same images",
        )
    if first.spec and second.spec and not _ancestors(first) & _ancestors(second):
        raise RcompressError(
            second.path,
            f"has no file of its history in common with {first.path.name}",
            "compare two versions of one network",
        )
    if first.spec and second.spec and first.spec.num_classes != second.spec.num_classes:
        raise RcompressError(
            second.path,
            f"has {second.spec.num_classes} classes, {first.path.name} {first.spec.num_classes}",
            "compare networks of the same classes",
        )
    return spec


def _ancestors(side: Side) -> set[str]:
    """Hashes of the files it was made from, and its own."""
    parents = {step.parent_sha256 for step in side.spec.lineage} if side.spec else set()
    return {side.sha256, *(parent for parent in parents if parent is not None)}


def _graph_side(path: Path, run: RunOptions) -> Side:
    opened = open_graph(path, run.arch)
    graph = opened.model if _is_converted(opened.model) else prepare_graph(opened.model, str(path))
    value = graph_input(graph, str(path))
    probe, output = GraphProbe(graph, str(path)), graph.graph.output[0].name
    return Side(path, opened.sha256, opened.spec, graph, probe, output, dtype_of(value), shape_of(value))


def _engine_side(info: EngineInfo, probe: Probe, output: str) -> Side:
    return Side(info.path, info.sha256, info.spec, None, probe, output, info.input_dtype, info.input_shape)


def _is_converted(model: onnx.ModelProto) -> bool:
    """Whether it is quantized or in half precision already."""
    operators = {node.op_type for node in model.graph.node}
    return "DequantizeLinear" in operators or bool(HALVES & set(element_types(model).values()))
