"""Files in half precision: graphs that compute in it, checkpoints that store it."""

from __future__ import annotations

from pathlib import Path

import torch

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.onnx_file import write_graph
from rcompress.artifacts.spec import Step, parent_fields
from rcompress.errors import RcompressError
from rcompress.measure.static import graph_metrics, inherited, module_metrics
from rcompress.methods.lower_precision import HalfPrecision, lower_precision
from rcompress.methods.source_graph import open_graph
from rcompress.models import load_model

DTYPES: dict[HalfPrecision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def write_half(source: Path, target: Path, half: HalfPrecision, arch: str | None = None) -> None:
    """Write ``source`` (.pth or .onnx) in ``half`` precision to ``target``, whose suffix says which of the two.

    Inputs and outputs stay FP32. A .pth keeps its whole-number buffers.

    Raises:
        RcompressError: a weight is too large for FP16, or the graph cannot be converted.
    """
    if target.suffix == ".pth":
        _write_checkpoint(source, target, half, arch)
        return
    graph = open_graph(source, arch)
    lowered = lower_precision(graph.model, half, str(source))
    step = Step(
        "quantize",
        {"precision": half},
        **parent_fields(source, graph.sha256),
        metrics=dict(inherited(graph_metrics(graph.model))),
    )
    write_graph(target, lowered, None if graph.spec is None else graph.spec.with_step(step))


def _write_checkpoint(source: Path, target: Path, half: HalfPrecision, arch: str | None) -> None:
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
