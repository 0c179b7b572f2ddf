"""What the size and the cost of an ONNX graph have in common: its weights, and who uses them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto, TensorProto

WEIGHT_TYPES = frozenset(
    (
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT4,
        TensorProto.UINT4,
        TensorProto.INT32,
    )
)
QUANTIZERS = frozenset(("QuantizeLinear", "DequantizeLinear"))
PASSES_ON = QUANTIZERS | {"Transpose", "Cast", "Identity"}
"""Operators through which a weight reaches the layer that uses it."""

INTEGER_VALUES: dict[str, tuple[int, ...]] = {
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3, 6),
    "QLinearAdd": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
}
"""Operators on integers by themselves (without Q/DQ) and their inputs that are values, not scales or zero points.
Shapes cannot be inferred through all of them, so that their cost stays unknown."""

NOT_LEARNED: dict[str, tuple[int, ...]] = {"BatchNormalization": (3, 4), "Clip": (1, 2)}
"""Operators and their inputs that were measured or chosen: running mean and variance, bounds."""

PACKED_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4}
"""Types that are packed below one byte; of all others NumPy knows the size."""


def type_bits(data_type: int) -> int:
    """Bits of a value of an ONNX element type."""
    packed = PACKED_BITS.get(data_type)
    return 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize if packed is None else packed


def constant_tensors(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Every stored tensor by its name (see `plain_form`)."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def quantized_type(node: NodeProto, types: Mapping[str, int]) -> int | None:
    """Element type of the integers that a QuantizeLinear makes or a DequantizeLinear reads.

    Its zero point tells, else ``output_dtype`` (opset 21), else UINT8 is meant; None: a DequantizeLinear reads
    what another node makes.
    """
    if len(node.input) > 2 and node.input[2] in types:
        return types[node.input[2]]
    if node.op_type == "DequantizeLinear":
        return types.get(node.input[0])
    declared = next((entry.i for entry in node.attribute if entry.name == "output_dtype"), 0)
    return int(declared or TensorProto.UINT8)


def parameter_tensors(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """The stored tensors that are parameters: no scales, zero points, shapes, running statistics or bounds."""
    helpers = {name for node in model.graph.node for name in _helper_inputs(node)}
    return {
        name: tensor
        for name, tensor in constant_tensors(model).items()
        if tensor.data_type in WEIGHT_TYPES and name not in helpers
    }


def parameters_by_node(model: onnx.ModelProto) -> list[list[str]]:
    """For each node of the graph, the parameters that only pass through (de)quantizers to reach it."""
    found = parameter_tensors(model)
    carried = {name: [name] for name in found}
    used: list[list[str]] = []
    for node in model.graph.node:
        names = [owner for value in node.input for owner in carried.get(value, ())]
        if names and node.op_type in PASSES_ON:
            carried[node.output[0]] = names
            names = []
        used.append(names)
    return used


def element_count(tensor: TensorProto) -> int:
    """Values in a tensor."""
    return math.prod(tensor.dims)


def value_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the values by ONNX's own inference, a free batch axis taken as 1; unknown ones are absent."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in single.graph.input:
        _close_batch_axis(value)
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    del single.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {name: tuple(tensor.dims) for name, tensor in constant_tensors(model).items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = tuple(axis.dim_value for axis in axes)
    return shapes


def attribute_ints(node: NodeProto, name: str, default: Sequence[int]) -> list[int]:
    """An attribute that is an integer or a list of them."""
    for entry in node.attribute:
        if entry.name == name:
            value = onnx.helper.get_attribute_value(entry)
            return list(value) if isinstance(value, list | tuple) else [int(value)]
    return list(default)


def _helper_inputs(node: NodeProto) -> Sequence[str]:
    if node.op_type in NOT_LEARNED:
        return [name for i, name in enumerate(node.input) if i in NOT_LEARNED[node.op_type]]
    values = (0,) if node.op_type in QUANTIZERS else INTEGER_VALUES.get(node.op_type)
    return () if values is None else [name for i, name in enumerate(node.input) if i not in values]


def _close_batch_axis(value: onnx.ValueInfoProto) -> None:
    axes = value.type.tensor_type.shape.dim
    if axes and not axes[0].HasField("dim_value"):
        axes[0].dim_value = 1
