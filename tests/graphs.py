"""Small ONNX graphs for tests, written by hand so that every node is known."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.export import onnx_from_module
from rcompress.models import build_model

SPEC = ModelSpec(4, Preprocessing((3, 8, 8), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))


def tensors(**arrays: object) -> list[TensorProto]:
    """Initializers by name; Python floats become float32."""
    made = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        made[name] = array.astype(np.float32) if array.dtype == np.float64 else array
    return [numpy_helper.from_array(array, name) for name, array in made.items()]


def model(
    nodes: list[onnx.NodeProto],
    constants: list[TensorProto],
    shape: tuple[int | str, ...] = ("batch", 3, 8, 8),
    output: tuple[int | str, ...] | None = ("batch", 4),
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A checked model from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)  # fills in an output shape not given
    onnx.checker.check_model(made)
    return made


def residual(batch: int | str = "batch", opset: int = 18, width: int = 8, seed: int = 0) -> onnx.ModelProto:
    """conv - relu - conv - add - relu - pool - fc: one residual block of a classifier of 3 x 8 x 8 images."""
    random = np.random.default_rng(seed)
    constants = tensors(
        w1=0.3 * random.standard_normal((width, 3, 3, 3)),
        b1=0.1 * random.standard_normal(width),
        w2=0.2 * random.standard_normal((width, width, 3, 3)),
        b2=0.1 * random.standard_normal(width),
        w3=random.standard_normal((4, width)),
        b3=random.standard_normal(4),
    )
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc", transB=1),
    ]
    return model(nodes, constants, (batch, 3, 8, 8), (batch, 4), opset)


@functools.cache
def resnet(name: str, **options: str) -> tuple[onnx.ModelProto, ModelSpec]:
    """One of our networks, untrained, as exported for 32 x 32 images, with its description."""
    torch.manual_seed(0)
    spec = ModelSpec(10, Preprocessing((3, 32, 32), (0.0,) * 3, (1.0,) * 3), name, options)
    return onnx_from_module(build_model(name, 10, **options).eval(), spec), spec


def images(count: int, seed: int = 1) -> np.ndarray:
    """float32 (count, 3, 8, 8), standard normal."""
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8), dtype=np.float32)
