"""The figures that need no run, in the records' vocabulary, for lineage steps and records."""

from __future__ import annotations

from pathlib import Path

import onnx
from torch import nn

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.artifacts.spec import ModelSpec
from rcompress.measure.complexity import graph_complexity, module_complexity
from rcompress.measure.size import graph_weights, module_weights, size_bytes
from rcompress.models.rebuild import load_model

INHERITED = ("parameters", "nonzero_parameters", "macs")
"""What building an engine does not change, and engines do not tell."""


def module_metrics(module: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """``weights_bytes``, ``parameters``, ``nonzero_parameters``, ``macs`` (one image) of a module."""
    return _with_macs(module_weights(module).metrics(), module_complexity(module, input_size).macs)


def graph_metrics(model: onnx.ModelProto) -> dict[str, int]:
    """The same of an ONNX graph; ``macs`` is absent where its shapes cannot be inferred."""
    return _with_macs(graph_weights(model).metrics(), graph_complexity(model).macs)


def file_metrics(path: Path, spec: ModelSpec | None, arch: str | None = None) -> dict[str, int]:
    """``size_bytes`` of any artifact and its network's figures: counted, or of an engine, from its lineage.

    Args:
        path: a .pth, .onnx or engine file.
        spec: the description that travels with it.
        arch: the user's own architecture, for a checkpoint that was built by it.
    """
    sizes = {"size_bytes": size_bytes(path)}
    if path.suffix == ".pth":
        loaded = load_model(path, arch)
        sizes |= module_metrics(loaded.module, loaded.spec.preprocessing.input_size)
        stored = module_weights(loaded.module.to(loaded.stored)).stored_bytes
        return sizes | {"weights_bytes": stored if loaded.packed_bytes is None else loaded.packed_bytes}
    if path.suffix == ".onnx":
        return sizes | graph_metrics(read_onnx(path).model)
    if path.suffix == ".xml":
        sizes["weights_bytes"] = path.with_suffix(".bin").stat().st_size
    return sizes | _inherited(spec)


def _inherited(spec: ModelSpec | None) -> dict[str, int]:
    figures: dict[str, int] = {}
    for step in spec.lineage if spec else ():
        figures |= {name: step.metrics[name] for name in INHERITED if name in step.metrics}
    return figures


def _with_macs(figures: dict[str, int], macs: int | None) -> dict[str, int]:
    return figures if macs is None else {**figures, "macs": macs}
