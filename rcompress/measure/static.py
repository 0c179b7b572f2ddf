"""The figures that need no run, in the records' vocabulary, for lineage steps and records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from torch import nn

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.artifacts.spec import CHECKPOINT_SUFFIXES, ModelSpec
from rcompress.measure.complexity import Complexity, graph_complexity, module_complexity
from rcompress.measure.size import Weights, graph_weights, module_weights, size_bytes
from rcompress.models.rebuild import LoadedModel, load_model

INHERITED = ("parameters", "nonzero_parameters", "macs")
"""What converting a network does not change, and engines do not tell."""


def module_metrics(module: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """What the tensors of a module hold, and ``macs`` and ``bit_operations`` of one image."""
    return _with_macs(module_weights(module), module_complexity(module, input_size))


def graph_metrics(model: onnx.ModelProto) -> dict[str, int]:
    """The same of an ONNX graph; without the latter two where its shapes cannot be inferred."""
    return _with_macs(graph_weights(model), graph_complexity(model))


def inherited(figures: Mapping[str, int]) -> dict[str, int]:
    """Of a network's figures before it is converted, those that stay: for the conversion's step in its lineage."""
    return {name: figures[name] for name in INHERITED if name in figures}


def file_metrics(path: Path, spec: ModelSpec | None, arch: str | None = None) -> dict[str, int]:
    """``size_bytes`` of any artifact and its network's figures: counted, or of an engine, from its lineage.

    Args:
        path: a .pth, .onnx or engine file.
        spec: the description that travels with it.
        arch: the user's own architecture, for a checkpoint that was built by it.
    """
    sizes = {"size_bytes": size_bytes(path)}
    if path.suffix in CHECKPOINT_SUFFIXES:
        return sizes | _checkpoint_metrics(load_model(path, arch))
    if path.suffix == ".onnx":
        return sizes | graph_metrics(read_onnx(path).model)
    if path.suffix == ".xml":
        sizes["weights_bytes"] = path.with_suffix(".bin").stat().st_size
    return sizes | _inherited(spec)


def _inherited(spec: ModelSpec | None) -> dict[str, int]:
    figures: dict[str, int] = {}
    for step in spec.lineage if spec else ():
        figures |= inherited(step.metrics)
    return figures


def _checkpoint_metrics(loaded: LoadedModel) -> dict[str, int]:
    """Of the network as it is computed with in FP32, but of its tensors as the file stores them."""
    complexity = module_complexity(loaded.module, loaded.spec.preprocessing.input_size)
    figures = _with_macs(module_weights(loaded.module.to(loaded.stored)), complexity)
    figures["bit_operations"] = 8 * loaded.stored.itemsize * figures["macs"]
    if loaded.packed_bytes is not None:
        figures |= {"weights_bytes": loaded.packed_bytes, "nonzero_bits": 8 * loaded.packed_bytes}
    return figures


def _with_macs(weights: Weights, complexity: Complexity) -> dict[str, int]:
    figures = weights.metrics()
    if complexity.macs is not None and complexity.bit_operations is not None:
        figures |= {"macs": complexity.macs, "bit_operations": complexity.bit_operations}
    return figures
