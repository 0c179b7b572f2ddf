"""Bits of what a graph multiplies, of graphs that this toolkit writes and of one by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from rcompress.measure.complexity import graph_complexity
from rcompress.methods.lower_precision import lower_precision
from rcompress.methods.placement import LayerBits
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from tests import graphs


def bits(model: onnx.ModelProto) -> list[int]:
    return [layer.bits for layer in graph_complexity(model).layers if layer.macs]


def quantized(how: LayerBits) -> onnx.ModelProto:
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return quantize_onnx(graphs.residual(), [images], 8, QuantizeOptions(bits=how)).model


@pytest.mark.parametrize(
    ("how", "expected"), [(LayerBits(8), 8), (LayerBits(4), 8), (LayerBits(4, False), 32)], ids=str
)
def test_the_wider_operand_counts(how: LayerBits, expected: int) -> None:
    model = quantized(how)
    assert bits(model)[:2] == [expected] * 2
    found = graph_complexity(model)
    assert found.bit_operations == sum(cost.macs * cost.bits for cost in found.layers)
    assert found.bit_operations < 32 * found.macs or expected == 32


def test_single_and_half_precision() -> None:
    assert bits(graphs.residual()) == [32, 32, 32]
    assert bits(lower_precision(graphs.residual(), "fp16", "graph")) == [16, 16, 16]


def test_a_quantizer_without_zero_point_says_its_type_itself() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=TensorProto.INT16),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("Conv", ["d", "v"], ["y"]),
    ]
    constants = graphs.tensors(s=0.1, w=np.ones((4, 3, 8, 8), np.int8))
    model = graphs.model(nodes, constants, output=("batch", 4, 1, 1), opset=21)
    assert bits(model) == [16]
