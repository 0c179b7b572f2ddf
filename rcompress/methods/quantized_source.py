"""Building from a graph that is quantized already: it is taken as it is, if its target takes it."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from rcompress.engines.base import Backend
from rcompress.engines.graph_io import element_types
from rcompress.errors import RcompressError
from rcompress.measure.graph import quantized_type
from rcompress.methods.graph_view import GraphView
from rcompress.methods.int4 import widened
from rcompress.methods.placement import Profile, never_negative
from rcompress.methods.source_graph import SourceGraph
from rcompress.progress import SILENT, Progress


def ready_for(source: SourceGraph, backend: Backend, progress: Progress = SILENT) -> onnx.ModelProto:
    """The quantized graph of ``source`` as ``backend`` runs it: 4-bit weights become INT8.

    Raises:
        RcompressError: it is unsigned and TensorRT would misread it.
    """
    profile, takes = profile_of(source.model), "tensorrt" if backend.startswith("tensorrt") else "cpu"
    again = f"rcompress quantize {_origin(source)} --profile {takes}"
    if profile == "cpu" and takes == "tensorrt":
        raise RcompressError(
            source.path, f"has unsigned activations, which {backend} misreads", f"make a signed one: {again}"
        )
    if profile == "tensorrt" and takes == "cpu":
        progress.note(
            "warning: the graph has signed activations, made for TensorRT: it runs on a CPU, but slowly; "
            f"for a fast one: {again}"
        )
    return widened(source.model)


def profile_of(model: onnx.ModelProto) -> Profile | None:
    """The profile that a graph was quantized for; None where it has no activation that tells."""
    view, types = GraphView(model), element_types(model)
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    if any(quantized_type(node, types) == TensorProto.UINT8 for node in quantizers):
        return "cpu"
    return "tensorrt" if any(never_negative(view, node.input[0]) for node in quantizers) else None


def _origin(source: SourceGraph) -> str:
    """The file that ``source`` was quantized from, as its lineage names it."""
    steps = source.spec.lineage if source.spec else ()
    names = [step.parent_name for step in steps if step.command == "quantize" and step.parent_name]
    return names[-1] if names else "FP32_FILE"
