"""Files in half precision: graphs that compute in it, checkpoints that store it."""

from __future__ import annotations

from pathlib import Path

import torch

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.onnx_file import write_graph
from rcompress.artifacts.spec import ModelSpec, Step, parent_fields
from rcompress.errors import RcompressError
from rcompress.measure.static import graph_metrics, inherited, module_metrics
from rcompress.methods.lower_precision import HalfPrecision, lower_precision
from rcompress.methods.source_graph import SourceGraph
from rcompress.models import load_model

DTYPES: dict[HalfPrecision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def write_half_graph(graph: SourceGraph, spec: ModelSpec | None, target: Path, half: HalfPrecision) -> None:
    """Write ``graph`` in ``half`` precision, described by ``spec``; inputs and outputs stay FP32.

    Raises:
        RcompressError: a weight is too large for FP16, or the graph cannot be converted.
    """
    lowered = lower_precision(graph.model, half, str(graph.path))
    step = Step(
        "quantize",
        {"precision": half},
        **parent_fields(graph.path, graph.sha256),
        metrics=dict(inherited(graph_metrics(graph.model))),
    )
    write_graph(target, lowered, None if spec is None else spec.with_step(step))


def write_half_checkpoint(source: Path, target: Path, half: HalfPrecision, arch: str | None = None) -> None:
    """Write the checkpoint ``source`` with tensors in ``half`` precision; whole numbers stay as they are.

    Raises:
        RcompressError: a weight is too large for FP16.
    """
    loaded = load_model(source, arch)
    metrics = inherited(module_metrics(loaded.module, loaded.spec.preprocessing.input_size))
    tensors = {
        name: tensor.to(DTYPES[half]) if tensor.is_floating_point() else tensor
        for name, tensor in loaded.module.state_dict().items()
    }
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RcompressError(source, f"{name} is too large for {half.upper()}", "use --bf16")
    step = Step(
        "quantize", {"precision": half}, **parent_fields(source, loaded.sha256), metrics=dict(metrics)
    )
    write_checkpoint(target, loaded.spec.with_step(step), tensors)
