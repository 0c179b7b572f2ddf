"""Quantize and dequantize as one operator, exact and with straight-through gradients, for the PyTorch executor.

``FakeQuantize`` is the executor's own operator: a graph's QuantizeLinear and the DequantizeLinear that alone reads
it become one of these, and quantization-aware training puts them behind its weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx
import torch
from torch import Tensor

from rcompress.engines.torch_node import Inputs, Node

INTEGER_RANGES: dict[int, tuple[int, int]] = {
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT4: (-8, 7),
    onnx.TensorProto.UINT4: (0, 15),
}
FAKE_QUANTIZE = "FakeQuantize"


class _FakeQuantize(torch.autograd.Function):
    """``clamp(round(x / s), low, high) * s`` and its derivatives after Esser et al. 2020 (LSQ), equations 3 and 5.

    The gradient of the values passes where ``low < x / s < high``. That of the scale is the sum of
    ``round(x / s) - x / s`` inside, ``low`` or ``high`` outside, each times the incoming gradient; written with the
    output at hand it is ``sum(gradient * output) / s - sum(passed * x / s)``: two products and no temporary.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        output = values.div(scale).round_().clamp_(low, high).mul_(scale)
        ctx.bounds = low, high
        ctx.save_for_backward(values, scale, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (gradient,) = gradients
        values, scale, output = ctx.saved_tensors
        scaled = values / scale
        passed = torch.ops.aten.hardtanh_backward(gradient, scaled, *ctx.bounds)
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None
        whole = (gradient * output).sum_to_size(scale.shape) / scale
        return passed, whole - scaled.mul_(passed).sum_to_size(scale.shape), None, None


def fake_quantize(node: Node, inputs: Inputs) -> Tensor:
    """Values rounded to multiples of the scale, from ``low`` to ``high`` of them; in the scale's type.

    Inputs: values, and a scale that is a scalar, a vector along ``axis``, or one for each ``block_size`` values.
    It computes in FP32 under autocast too: BF16 cannot tell the multiples above 256 apart, nor round to them.
    """
    values: Tensor = inputs[0].float()
    scale = along(node.attributes, inputs[1].float(), values)
    low, high = node.attributes["low"], node.attributes["high"]
    result: Tensor = _FakeQuantize.apply(values, scale, low, high)
    return result.to(inputs[1].dtype)


def along(attributes: Mapping[str, Any], parameter: Tensor, data: Tensor) -> Tensor:
    """A scale or zero point of a Q or DQ shaped to broadcast over ``data``, as the node's ``attributes`` say."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    axis = attributes.get("axis", 1) % data.dim()
    if block := attributes.get("block_size", 0):
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, data.shape[axis])
    shape = [1] * data.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


def fused(nodes: list[Node], constants: Mapping[str, Tensor], output: str) -> list[Node]:
    """``nodes`` with each QuantizeLinear whose only reader undoes it made one with that DequantizeLinear.

    Args:
        nodes: a graph's, in its order.
        constants: its integer initializers, among them the zero points.
        output: the tensor that the graph returns.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    makers = {node.outputs[0]: node for node in nodes if node.op == "QuantizeLinear"}
    gone, result = set(), []
    for node in nodes:
        quantizer = makers.get(node.inputs[0]) if node.op == "DequantizeLinear" else None
        if quantizer is None or readers[node.inputs[0]] != 1 or node.inputs[0] == output:
            result.append(node)
        elif (pair := _pair(quantizer, node, constants)) is not None:
            result.append(pair)
            gone.add(quantizer.outputs[0])
        else:
            result.append(node)
    return [node for node in result if node.outputs[0] not in gone]


def _pair(quantizer: Node, dequantizer: Node, constants: Mapping[str, Tensor]) -> Node | None:
    """The two as one node; None where they differ in more than direction, or in zero points along an axis."""
    shape = ("axis", "block_size")
    alike = [quantizer.attributes.get(name) == dequantizer.attributes.get(name) for name in shape]
    if quantizer.inputs[1:] != dequantizer.inputs[1:] or not all(alike) or len(quantizer.inputs) < 3:
        return None
    zero_points = constants.get(quantizer.inputs[2])
    if zero_points is None or not bool((zero_points == zero_points.flatten()[0]).all()):
        return None
    zero = int(zero_points.flatten()[0])
    low, high = (bound - zero for bound in INTEGER_RANGES[quantizer.element_types[2]])
    return replace(
        dequantizer,
        op=FAKE_QUANTIZE,
        inputs=quantizer.inputs[:2],
        attributes={**quantizer.attributes, "low": low, "high": high},
        element_types={},
    )
