"""The figures that need no run, in the records' vocabulary, for lineage steps and records."""

from __future__ import annotations

import onnx
from torch import nn

from rcompress.measure.complexity import graph_complexity, module_complexity
from rcompress.measure.size import graph_weights, module_weights


def module_metrics(module: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """``weights_bytes``, ``parameters``, ``nonzero_parameters``, ``macs`` (one image) of a module."""
    return _with_macs(module_weights(module).metrics(), module_complexity(module, input_size).macs)


def graph_metrics(model: onnx.ModelProto) -> dict[str, int]:
    """The same of an ONNX graph; ``macs`` is absent where its shapes cannot be inferred."""
    return _with_macs(graph_weights(model).metrics(), graph_complexity(model).macs)


def _with_macs(figures: dict[str, int], macs: int | None) -> dict[str, int]:
    return figures if macs is None else {**figures, "macs": macs}
