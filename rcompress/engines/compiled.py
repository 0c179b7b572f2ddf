"""What the CPU runtimes make of a graph once compiled: which convolutions run in INT8, what conversions remain."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from rcompress.engines import ort, ov
from rcompress.engines.base import Backend
from rcompress.errors import RcompressError

CONVOLUTIONS = {"Conv", "FusedConv", "QLinearConv", "ConvInteger", "Convolution", "GroupConvolution"}
CONVERSIONS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "FakeQuantize",
    "Cast",
    "Convert",
    "Transpose",
    "ReorderInput",
    "ReorderOutput",
    "Reorder",
}
"""What ONNX Runtime and OpenVINO call their nodes; no name means one thing there and another here."""


@dataclass(frozen=True)
class CompiledGraph:
    """One runtime's plan for a graph on this CPU.

    Attributes:
        backend: which runtime.
        convolutions: how many run in each precision, as in ``{"I8": 21}``.
        conversions: nodes that only quantize, dequantize or lay out anew, by operator.
        fault: why it cannot run the graph; then nothing is counted.
    """

    backend: Backend
    convolutions: dict[str, int] = field(default_factory=dict)
    conversions: dict[str, int] = field(default_factory=dict)
    fault: str | None = None

    @property
    def all_convolutions(self) -> int:
        return sum(self.convolutions.values())

    def to_dict(self) -> dict[str, Any]:
        """Primitives."""
        return asdict(self)

    def sentence(self) -> str:
        """One line for people."""
        if self.fault is not None:
            return f"{self.backend} cannot run it: {self.fault}"
        shown = ", ".join(f"{count} {name}" for name, count in sorted(self.conversions.items()))
        total = sum(self.conversions.values())
        return (
            f"{self.backend} runs {self.convolutions.get('I8', 0)} of {self.all_convolutions} convolutions in INT8; "
            f"{total} conversions remain{f' ({shown})' if shown else ''}"
        )


def compiled_graphs(model: onnx.ModelProto) -> tuple[CompiledGraph, ...]:
    """Compile ``model`` with ONNX Runtime and OpenVINO and ask both what they made of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        return _compiled("onnxruntime", path), _compiled("openvino", path)


def _compiled(backend: Backend, path: Path) -> CompiledGraph:
    try:
        layers = (
            ov.layers_of(path) if backend == "openvino" else ort.optimized_layers(ort.optimized_graph(path))
        )
    except RcompressError as error:
        return CompiledGraph(backend, fault=error.fault)
    return CompiledGraph(
        backend,
        dict(Counter(precision for kind, precision in layers if kind in CONVOLUTIONS)),
        dict(Counter(kind for kind, _ in layers if kind in CONVERSIONS)),
    )
