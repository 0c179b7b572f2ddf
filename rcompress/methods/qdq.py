"""Writing explicit quantization into a graph: QuantizeLinear and DequantizeLinear, symmetric INT8."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from rcompress.methods.calibration import Range
from rcompress.methods.graph_view import GraphView, remove_unused_initializers
from rcompress.methods.placement import Integer, Placement, Weight, range_source

WEIGHT_LEVELS = 127
LEVELS: dict[Integer, int] = {"int8": 127, "uint8": 255, "uint8-centred": 127}
ZERO_POINTS: dict[Integer, NDArray[np.generic]] = {
    "int8": np.zeros((), np.int8),
    "uint8": np.zeros((), np.uint8),
    "uint8-centred": np.full((), 128, np.uint8),
}
BIAS_LIMIT = (
    2**30
)  # runtimes store a bias as INT32 in units of (input scale x weight scale): half of that range

FloatArray = NDArray[np.float32]


def insert_qdq(
    model: onnx.ModelProto, placement: Placement, ranges: Mapping[str, Range], per_channel: bool
) -> onnx.ModelProto:
    """A copy of ``model`` with Q/DQ around what ``placement`` names.

    Activations get one scale each; weights become INT8 constants behind a DequantizeLinear, with one scale
    for each output channel, or one for all. Biases stay FP32: the runtimes quantize them by themselves, and
    TensorRT refuses a DequantizeLinear on INT32.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    view = GraphView(result)
    scales = {
        name: _activation_scale(ranges[range_source(view, name, placement.activations)], integer)
        for name, integer in placement.activations.items()
    }
    opening, after = [], {}
    for name, integer in placement.activations.items():
        pair = _quantize_activation(view, name, scales[name], integer)
        if name in view.producers:
            after[name] = pair
        else:
            opening += pair
    for name, axis in dict.fromkeys((weight.name, weight.axis) for weight in placement.weights):
        sharing = [weight for weight in placement.weights if (weight.name, weight.axis) == (name, axis)]
        opening.append(_quantize_weight(view, sharing, scales, per_channel))
    nodes = [*opening, *(made for node in result.graph.node for made in (node, *_following(node, after)))]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    remove_unused_initializers(result)
    onnx.checker.check_model(result)
    return result


def _following(node: NodeProto, after: Mapping[str, list[NodeProto]]) -> list[NodeProto]:
    return [made for name in node.output for made in after.get(name, [])]


def _activation_scale(seen: Range, integer: Integer) -> float:
    """The scale of a tensor; 1 for one that was always zero, whose scale does not matter."""
    return seen.threshold / LEVELS[integer] or 1.0


def _quantize_activation(view: GraphView, name: str, scale: float, integer: Integer) -> list[NodeProto]:
    """Q and DQ behind ``name``, with all its readers moved to DQ's output."""
    _add_constant(view, f"{name}_scale", np.float32(scale))
    _add_constant(view, f"{name}_zero_point", ZERO_POINTS[integer])
    for node in view.consumers[name]:
        _replace_input(node, name, f"{name}_dequantized")
    operands = [f"{name}_scale", f"{name}_zero_point"]
    return [
        helper.make_node("QuantizeLinear", [name, *operands], [f"{name}_quantized"], f"{name}_q"),
        helper.make_node(
            "DequantizeLinear", [f"{name}_quantized", *operands], [f"{name}_dequantized"], f"{name}_dq"
        ),
    ]


def _quantize_weight(
    view: GraphView, sharing: list[Weight], scales: Mapping[str, float], per_channel: bool
) -> NodeProto:
    """The constant that the layers in ``sharing`` read becomes INT8 behind a DQ."""
    name, axis = sharing[0].name, sharing[0].axis
    values = numpy_helper.to_array(view.initializers[name]).astype(np.float32)
    floor = np.zeros(values.shape[axis], np.float32)
    for layer in sharing:
        if layer.bias is not None:
            bias = np.abs(numpy_helper.to_array(view.initializers[layer.bias])).reshape(-1)
            floor = np.maximum(floor, bias / (scales[layer.activation] * BIAS_LIMIT))
    scale = weight_scales(values, axis, per_channel, floor)
    stem = f"{name}_axis{axis}" if f"{name}_quantized" in view.initializers else name
    _add_constant(view, f"{stem}_quantized", quantized_weights(values, axis, scale))
    _add_constant(view, f"{stem}_scale", scale if per_channel else scale.max())
    _add_constant(view, f"{stem}_zero_point", np.zeros(scale.shape if per_channel else (), np.int8))
    for node in view.consumers[name]:
        if node.op_type in ("Conv", "Gemm", "MatMul") and any(
            layer.activation in _origin(node) for layer in sharing
        ):
            _replace_input(node, name, f"{stem}_dequantized")
    return helper.make_node(
        "DequantizeLinear",
        [f"{stem}_quantized", f"{stem}_scale", f"{stem}_zero_point"],
        [f"{stem}_dequantized"],
        f"{stem}_dq",
        axis=axis,
    )


def _origin(node: NodeProto) -> tuple[str, str]:
    """A layer's activation under its old and its quantized name."""
    return node.input[0], node.input[0].removesuffix("_dequantized")


def weight_scales(values: FloatArray, axis: int, per_channel: bool, floor: FloatArray) -> FloatArray:
    """Symmetric scales, float32 (channels,): the largest magnitude becomes 127; equal unless ``per_channel``.

    Args:
        values: a layer's weights.
        axis: of the output channels.
        floor: float32 (channels,), least scales, so that a nearly dead channel's bias still fits its INT32.
    """
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others)
    if not per_channel:
        largest = np.full_like(largest, largest.max())
    scale = np.maximum(largest / WEIGHT_LEVELS, floor)
    if not per_channel:
        scale = np.full_like(scale, scale.max())
    return np.where(scale > 0, scale, 1.0).astype(np.float32)


def quantized_weights(values: FloatArray, axis: int, scale: FloatArray) -> NDArray[np.int8]:
    """``values`` in steps of ``scale`` (channels,) along ``axis``, rounded half to even, in -127..127."""
    shape = [1] * values.ndim
    shape[axis] = -1
    steps = np.rint(values / scale.reshape(shape))
    return np.asarray(np.clip(steps, -WEIGHT_LEVELS, WEIGHT_LEVELS), dtype=np.int8)


def _add_constant(view: GraphView, name: str, value: object) -> None:
    tensor: TensorProto = numpy_helper.from_array(np.asarray(value), name)
    view.model.graph.initializer.append(tensor)
    view.initializers[name] = tensor


def _replace_input(node: NodeProto, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new
