"""Files of a network so small that building, loading and running it takes no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.onnx_file import write_onnx
from rcompress.artifacts.spec import ModelSpec, Preprocessing, Step
from rcompress.models import build_model

SIDE, WIDTH, CLASSES = 8, 6, 4
PARAMETERS = WIDTH * 3 * 9 + WIDTH * CLASSES
MACS = WIDTH * (SIDE - 2) ** 2 * 27 + WIDTH * CLASSES


def tiny_spec() -> ModelSpec:
    """Of the graph; its history says what an engine cannot."""
    spec = ModelSpec(CLASSES, Preprocessing((3, SIDE, SIDE), (0.5,) * 3, (0.25,) * 3))
    return spec.with_step(Step("export", metrics={"parameters": PARAMETERS, "macs": MACS}))


def tiny_graph(batch: int | str = "batch") -> onnx.ModelProto:
    """3x3 convolution, mean, matrix product: ``images`` (batch, 3, 8, 8) to ``logits`` (batch, 4)."""
    generator = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(generator.standard_normal(shape, dtype=np.float32), name)
        for name, shape in (("conv.weight", (WIDTH, 3, 3, 3)), ("fc.weight", (WIDTH, CLASSES)))
    ]
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight"], ["features"], name="conv"),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc.weight"], ["logits"], name="fc"),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def tiny_onnx(path: Path, batch: int | str = "batch") -> Path:
    """The graph as a file of ours."""
    return write_onnx(path, tiny_graph(batch), tiny_spec())


def tiny_checkpoint(path: Path) -> Path:
    """An untrained ResNet-20 as a file of ours."""
    torch.manual_seed(0)
    preprocessing = Preprocessing((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    module = build_model("resnet20", 10)
    return write_checkpoint(path, ModelSpec(10, preprocessing, arch="resnet20"), module.state_dict())
