"""Where QuantizeLinear and DequantizeLinear stand: which tensors of a graph become INT8, for which target."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import onnx
from onnx import NodeProto

from rcompress.methods.graph_view import GraphView, attribute, layer_name
from rcompress.methods.weight_grid import Bits

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
class LayerBits:
    """How fine each layer's numbers are.

    Attributes:
        weights: of a layer that is not named below.
        activations: whether activations become 8-bit integers; else they stay FP32.
        wide: layers whose weights take 8 bits all the same.
        skip: layers that stay FP32.
    """

    weights: Bits = 8
    activations: bool = True
    wide: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weight:
    """A constant operand: the initializer's name, its output-channel axis, its bits, and the layer's operands."""

    name: str
    axis: int
    activation: str
    bias: str | None
    layer: str
    bits: Bits = 8


@dataclass(frozen=True)
class Placement:
    """What is to be quantized.

    Attributes:
        activations: name of each tensor, and the integers it becomes: ``int8`` and ``uint8`` have zero point
            0, ``uint8-centred`` has 128 (the values of ``int8`` in unsigned clothes).
        weights: the constant operands.
        convolutions, matrices: how many layers of either kind run in INT8.
        skip: layers that read tensors as they were before quantization. (ONNX Runtime 1.31 quantizes the weights
            of a layer between a DQ and a Q by itself.)
    """

    activations: dict[str, Integer]
    weights: tuple[Weight, ...]
    convolutions: int
    matrices: int
    skip: tuple[str, ...] = ()


def place(model: onnx.ModelProto, profile: Profile, bits: LayerBits = LayerBits()) -> Placement:
    """Find every convolution and matrix product with constant weights, and the tensors around them.

    ``cpu``: inputs and outputs of convolutions and both inputs of residual adds, so that ONNX Runtime finds a
    quantizer on every side of a layer; unsigned where values are never negative, for VNNI multiplies unsigned
    by signed. ``tensorrt``: inputs of the layers and the shortcut of residual adds, all signed.
    A residual add all of whose layers are skipped stays as it is too.
    """
    view = GraphView(model)
    layers = [
        (node, weight) for node, weight in layers_of(view, bits.weights) if weight.layer not in bits.skip
    ]
    layers = [
        (node, replace(weight, bits=8) if weight.layer in bits.wide else weight) for node, weight in layers
    ]
    chosen = {weight.layer for _, weight in layers}
    names: dict[str, None] = {}
    for node in model.graph.node if bits.activations else ():
        names |= dict.fromkeys(_around(view, node, profile, chosen))
    convolutions = sum(node.op_type == "Conv" for node, _ in layers)
    return Placement(
        activations={
            name: _integer(view, name, profile) for name in names if _is_read(view, name, bits.skip)
        },
        weights=tuple(weight for _, weight in layers),
        convolutions=convolutions,
        matrices=len(layers) - convolutions,
        skip=bits.skip,
    )


def _is_read(view: GraphView, name: str, skip: tuple[str, ...]) -> bool:
    """Whether anything but a skipped layer reads ``name``."""
    return any(layer_name(node) not in skip for node in view.consumers[name])


def layers_of(view: GraphView, bits: Bits = 8) -> list[tuple[NodeProto, Weight]]:
    """Every convolution and matrix product with constant weights, in the graph's order."""
    found = ((node, _weight_of(view, node, bits)) for node in view.model.graph.node)
    return [(node, weight) for node, weight in found if weight is not None]


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


def _around(view: GraphView, node: NodeProto, profile: Profile, chosen: Container[str]) -> list[str]:
    """The tensors to quantize because of ``node``, where it is one of the ``chosen`` layers or adds their outputs."""
    if _is_residual_add(view, node):
        makers = [maker for name in node.input if (maker := view.producers.get(name)) is not None]
        added = [layer_name(maker) for maker in makers if _weight_of(view, maker) is not None]
        if added and not any(name in chosen for name in added):
            return []
        return list(node.input) if profile == "cpu" else [_shortcut(view, node)]
    if _weight_of(view, node) is None or layer_name(node) not in chosen:
        return []
    names = [node.input[0]]
    if profile == "cpu" and node.op_type == "Conv":
        output = _after_activation(view, node.output[0])
        names += [] if output in view.outputs else [output]
    return names


def _weight_of(view: GraphView, node: NodeProto, bits: Bits = 8) -> Weight | None:
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
    return Weight(name, 0 if by_rows else 1, node.input[0], bias, layer_name(node), bits)


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
