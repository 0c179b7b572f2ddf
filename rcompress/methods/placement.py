"""Where QuantizeLinear and DequantizeLinear stand: which tensors of a graph become INT8, for which target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import NodeProto

from rcompress.methods.graph_view import GraphView, attribute

Profile = Literal["cpu", "tensorrt"]
Integer = Literal["int8", "uint8", "uint8-centred"]

NON_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax"}
SIGN_KEEPING = {
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMean",
    "Concat",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Slice",
    "Add",
    "Mul",
}
VALUE_KEEPING = {
    "MaxPool",
    "GlobalMaxPool",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
}


@dataclass(frozen=True)
class Weight:
    """A constant operand: the initializer's name, its output-channel axis, and the layer's own operands."""

    name: str
    axis: int
    activation: str
    bias: str | None


@dataclass(frozen=True)
class Placement:
    """What is to be quantized.

    Attributes:
        activations: name of each tensor, and the integers it becomes: ``int8`` and ``uint8`` have zero point
            0, ``uint8-centred`` has 128 (the values of ``int8`` in unsigned clothes).
        weights: the constant operands.
        convolutions, matrices: how many layers of either kind run in INT8.
    """

    activations: dict[str, Integer]
    weights: tuple[Weight, ...]
    convolutions: int
    matrices: int


def place(model: onnx.ModelProto, profile: Profile) -> Placement:
    """Find every convolution and matrix product with constant weights, and the tensors around them.

    ``cpu``: inputs and outputs of convolutions and both inputs of residual adds, so that ONNX Runtime finds a
    quantizer on every side of a layer; unsigned where values are never negative, for VNNI multiplies unsigned
    by signed. ``tensorrt``: inputs of the layers and the shortcut of residual adds, all signed.
    """
    view = GraphView(model)
    layers = [(node, weight) for node in model.graph.node if (weight := _weight_of(view, node)) is not None]
    names: dict[str, None] = {}
    for node in model.graph.node:
        names |= dict.fromkeys(_around(view, node, profile))
    convolutions = sum(node.op_type == "Conv" for node, _ in layers)
    return Placement(
        activations={name: _integer(view, name, profile) for name in names},
        weights=tuple(weight for _, weight in layers),
        convolutions=convolutions,
        matrices=len(layers) - convolutions,
    )


def _integer(view: GraphView, name: str, profile: Profile) -> Integer:
    """Which integers ``name`` becomes.

    ONNX Runtime 1.31 runs a convolution in INT8 only between tensors of one type; it recasts signed tensors
    by itself, but not those that several nodes read (densenet121: 66 of 120 convolutions instead of all).
    """
    if profile == "tensorrt":
        return "int8"
    if never_negative(view, name):
        return "uint8"
    return "uint8-centred" if len(view.consumers[name]) > 1 else "int8"


def _around(view: GraphView, node: NodeProto, profile: Profile) -> list[str]:
    """The tensors to quantize because of ``node``."""
    if _is_residual_add(view, node):
        return list(node.input) if profile == "cpu" else [_shortcut(view, node)]
    if _weight_of(view, node) is None:
        return []
    names = [node.input[0]]
    if profile == "cpu" and node.op_type == "Conv":
        output = _after_activation(view, node.output[0])
        names += [] if output in view.outputs else [output]
    return names


def _weight_of(view: GraphView, node: NodeProto) -> Weight | None:
    """The constant operand of a layer that can run in INT8; None for any other node."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or view.is_constant(node.input[0]):
        return None
    name = node.input[1]
    if not view.is_constant(name) or (node.op_type == "Gemm" and attribute(node, "transA", 0)):
        return None
    rank = len(view.initializers[name].dims)
    if node.op_type != "Conv" and rank != 2:
        return None
    by_rows = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0))
    bias = node.input[2] if len(node.input) > 2 and view.is_constant(node.input[2]) else None
    return Weight(name, 0 if by_rows else 1, node.input[0], bias)


def _is_residual_add(view: GraphView, node: NodeProto) -> bool:
    return node.op_type == "Add" and len(node.input) == 2 and not any(map(view.is_constant, node.input))


def _shortcut(view: GraphView, node: NodeProto) -> str:
    """The input of a residual add that did not just leave a convolution; the last one where both did."""
    made_by = [view.producers.get(name) for name in node.input]
    for name, producer in zip(node.input, made_by, strict=True):
        if producer is None or producer.op_type != "Conv":
            return str(name)
    return str(node.input[1])


def _after_activation(view: GraphView, name: str) -> str:
    """The tensor behind the ReLU or Clip that alone reads ``name``: it is fused into the convolution."""
    reader = view.only_consumer(name)
    return str(reader.output[0]) if reader is not None and reader.op_type in ("Relu", "Clip") else name


def never_negative(view: GraphView, name: str) -> bool:
    """Whether the graph itself, not the data, rules out negative values of ``name``."""
    node = view.producers.get(name)
    if node is None:
        tensor = view.initializers.get(name)
        return tensor is not None and bool((onnx.numpy_helper.to_array(tensor) >= 0).all())
    if node.op_type in NON_NEGATIVE:
        return True
    if node.op_type == "Clip":
        lower = view.initializers.get(node.input[1]) if len(node.input) > 1 else None
        return lower is not None and float(onnx.numpy_helper.to_array(lower)) >= 0.0
    if node.op_type in SIGN_KEEPING:
        operands = node.input if node.op_type in ("Add", "Mul", "Concat") else node.input[:1]
        return all(never_negative(view, operand) for operand in operands)
    return False


def range_source(view: GraphView, name: str, quantized: Mapping[str, Integer]) -> str:
    """The tensor whose range ``name`` must share: pooling and reshaping pass INT8 values on as they are."""
    node = view.producers.get(name)
    while node is not None and node.op_type in VALUE_KEEPING and node.input[0] in quantized:
        name = node.input[0]
        node = view.producers.get(name)
    return name
