"""Writing explicit quantization into a graph: QuantizeLinear and DequantizeLinear, symmetric INT8."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from rcompress.engines.graph_io import opset_of
from rcompress.methods.calibration import Range
from rcompress.methods.graph_view import GraphView, layer_name, remove_unused_initializers
from rcompress.methods.placement import Integer, Placement, Weight, range_source
from rcompress.methods.weight_grid import Bits, WeightGrid, fitting_group

LEAST_IR = 10
NARROW_OPSET = 21  # scales for blocks of a tensor, and 4-bit integers, begin here
LEVELS: dict[Integer, int] = {"int8": 127, "uint8": 255, "uint8-centred": 127}
ZERO_POINTS: dict[Integer, NDArray[np.generic]] = {
    "int8": np.zeros((), np.int8),
    "uint8": np.zeros((), np.uint8),
    "uint8-centred": np.full((), 128, np.uint8),
}
WEIGHT_TYPES: dict[Bits, int] = {4: TensorProto.INT4, 8: TensorProto.INT8}
BIAS_LIMIT = (
    2**30
)  # runtimes store a bias as INT32 in units of (input scale x weight scale): half of that range


def insert_qdq(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, Range],
    per_channel: bool,
    group: int | None = None,
) -> onnx.ModelProto:
    """A copy of ``model`` with Q/DQ around what ``placement`` names.

    Activations get one scale each; weights become INT8 or INT4 constants behind a DequantizeLinear, with one
    scale for each output channel, one for all, or one for at most ``group`` weights of a channel. Biases stay
    FP32: the runtimes quantize them by themselves, and TensorRT refuses a DequantizeLinear on INT32.
    """
    narrow = group is not None or any(weight.bits == 4 for weight in placement.weights)
    result = with_opset(model, NARROW_OPSET) if narrow else _copy(model)
    view = GraphView(result)
    scales = {
        name: _activation_scale(ranges[range_source(view, name, placement.activations)], integer)
        for name, integer in placement.activations.items()
    }
    opening, after = [], {}
    for name, integer in placement.activations.items():
        pair = _quantize_activation(view, name, scales[name], integer, placement.skip)
        if name in view.producers:
            after[name] = pair
        else:
            opening += pair
    for name, axis in dict.fromkeys((weight.name, weight.axis) for weight in placement.weights):
        sharing = [weight for weight in placement.weights if (weight.name, weight.axis) == (name, axis)]
        values = numpy_helper.to_array(view.initializers[name])
        fitting = None if group is None else fitting_group(group, values, axis)
        grid = WeightGrid(max(weight.bits for weight in sharing), axis, per_channel, fitting)
        opening += _quantize_weight(view, sharing, scales, grid)
    nodes = [*opening, *(made for node in result.graph.node for made in (node, *_following(node, after)))]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    remove_unused_initializers(result)
    onnx.checker.check_model(result)
    return result


def with_opset(model: onnx.ModelProto, least: int) -> onnx.ModelProto:
    """A copy of ``model`` in opset ``least`` or later."""
    if opset_of(model) >= least:
        return _copy(model)
    converted: onnx.ModelProto = onnx.version_converter.convert_version(model, least)
    converted.ir_version = max(converted.ir_version, LEAST_IR)
    return converted


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _following(node: NodeProto, after: Mapping[str, list[NodeProto]]) -> list[NodeProto]:
    return [made for name in node.output for made in after.get(name, [])]


def _activation_scale(seen: Range, integer: Integer) -> float:
    """The scale of a tensor; 1 for one that was always zero, whose scale does not matter."""
    return seen.threshold / LEVELS[integer] or 1.0


def _quantize_activation(
    view: GraphView, name: str, scale: float, integer: Integer, skip: tuple[str, ...]
) -> list[NodeProto]:
    """Q and DQ behind ``name``, with its readers, but for those to ``skip``, moved to DQ's output."""
    _add_constant(view, f"{name}_scale", np.float32(scale))
    _add_constant(view, f"{name}_zero_point", ZERO_POINTS[integer])
    for node in view.consumers[name]:
        if layer_name(node) not in skip:
            _replace_input(node, name, f"{name}_dequantized")
    operands = [f"{name}_scale", f"{name}_zero_point"]
    return [
        helper.make_node("QuantizeLinear", [name, *operands], [f"{name}_quantized"], f"{name}_q"),
        helper.make_node(
            "DequantizeLinear", [f"{name}_quantized", *operands], [f"{name}_dequantized"], f"{name}_dq"
        ),
    ]


def _quantize_weight(
    view: GraphView, sharing: list[Weight], scales: Mapping[str, float], grid: WeightGrid
) -> list[NodeProto]:
    """The constant that the layers in ``sharing`` read becomes INT8 behind a DQ."""
    name, axis = sharing[0].name, sharing[0].axis
    values = numpy_helper.to_array(view.initializers[name]).astype(np.float32)
    scale = grid.scales(values, _least_scales(view, sharing, scales, values.shape[axis]))
    steps = grid.steps(values, scale)
    stem = f"{name}_axis{axis}" if f"{name}_quantized" in view.initializers else name
    for node in view.consumers[name]:
        if node.op_type in ("Conv", "Gemm", "MatMul") and any(
            layer.activation in _origin(node) for layer in sharing
        ):
            _replace_input(node, name, f"{stem}_dequantized")
    if grid.group is not None:
        return _dequantized_blocks(view, stem, steps, scale, grid)
    operands = _weight_constants(view, stem, steps, scale, grid.bits)
    return [
        helper.make_node("DequantizeLinear", operands, [f"{stem}_dequantized"], f"{stem}_dq", axis=axis),
    ]


def _least_scales(
    view: GraphView, sharing: list[Weight], scales: Mapping[str, float], channels: int
) -> NDArray[np.float32]:
    """float32 (channels,): the scales below which a bias would not fit its INT32 (0 where inputs stay FP32)."""
    floor = np.zeros(channels, np.float32)
    for layer in sharing:
        if layer.bias is not None and layer.activation in scales:
            bias = np.abs(numpy_helper.to_array(view.initializers[layer.bias])).reshape(-1)
            floor = np.maximum(floor, bias / (scales[layer.activation] * BIAS_LIMIT))
    return floor


def _weight_constants(
    view: GraphView, stem: str, steps: NDArray[np.int8], scale: NDArray[np.float32], bits: Bits
) -> list[str]:
    """Names of the integers, scales and zero points, now constants of the graph."""
    kind = helper.tensor_dtype_to_np_dtype(WEIGHT_TYPES[bits])
    _add_constant(view, f"{stem}_quantized", steps.astype(kind))
    _add_constant(view, f"{stem}_scale", scale)
    _add_constant(view, f"{stem}_zero_point", np.zeros(scale.shape, kind))
    return [f"{stem}_quantized", f"{stem}_scale", f"{stem}_zero_point"]


def _dequantized_blocks(
    view: GraphView, stem: str, steps: NDArray[np.int8], scale: NDArray[np.float32], grid: WeightGrid
) -> list[NodeProto]:
    """Blocks lie in rows: a convolution's weights are flattened to (out, in x kh x kw) and shaped back."""
    flat, last = grid.axis == 0, f"{stem}_dequantized"
    rows = steps.reshape(len(steps), -1) if flat else steps
    ordered = scale if flat else np.ascontiguousarray(scale.T)
    operands = _weight_constants(view, stem, rows, ordered, grid.bits)
    made = last if steps.ndim == 2 else f"{stem}_rows"
    nodes = [
        helper.make_node(
            "DequantizeLinear", operands, [made], f"{stem}_dq", axis=int(flat), block_size=grid.group
        )
    ]
    if steps.ndim > 2:
        _add_constant(view, f"{stem}_shape", np.array(steps.shape, np.int64))
        nodes.append(helper.make_node("Reshape", [made, f"{stem}_shape"], [last], f"{stem}_reshape"))
    return nodes


def _origin(node: NodeProto) -> tuple[str, str]:
    """A layer's activation under its old and its quantized name."""
    return node.input[0], node.input[0].removesuffix("_dequantized")


def _add_constant(view: GraphView, name: str, value: object) -> None:
    tensor: TensorProto = numpy_helper.from_array(np.asarray(value), name)
    view.model.graph.initializer.append(tensor)
    view.initializers[name] = tensor


def _replace_input(node: NodeProto, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new
