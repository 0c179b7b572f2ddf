"""Sizes of files and weights, counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from rcompress.measure.size import graph_weights, module_weights, size_bytes


def test_an_engine_of_two_files_counts_both(tmp_path):
    (tmp_path / "e.xml").write_bytes(b"x" * 10)
    (tmp_path / "e.bin").write_bytes(b"x" * 700)
    (tmp_path / "e.plan").write_bytes(b"x" * 33)
    (tmp_path / "e.plan.json").write_bytes(b"x" * 5)
    assert size_bytes(tmp_path / "e.xml") == 710
    assert size_bytes(tmp_path / "e.plan") == 33


def test_a_module_counts_buffers_as_bytes_but_not_as_parameters():
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4))
    with torch.no_grad():
        module[0].weight[0] = 0.0
        module[1].bias.fill_(1.0)
    found = module_weights(module)
    assert found.parameters == 72 + 8
    assert found.nonzero_parameters == 72 - 18 + 8
    assert found.nonzero_bits == 32 * (72 - 18 + 8)
    assert found.stored_bytes == 4 * (72 + 8 + 8) + 8  # running mean and variance, and a 64-bit counter
    assert found.sparsity_percent == pytest.approx(100 * 18 / 80)
    assert module_weights(module.half()).stored_bytes == 2 * 88 + 8


def quantized_model(weights: onnx.TensorProto) -> onnx.ModelProto:
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "s")
    shape = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    bias = numpy_helper.from_array(np.ones(4, np.float32), "b")
    nodes = [
        helper.make_node("DequantizeLinear", [weights.name, "s"], ["wd"]),
        helper.make_node("MatMul", ["x", "wd"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", "K"])]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [weights, scale, shape, bias]))


def test_scales_and_shapes_are_stored_but_are_no_parameters():
    values = np.arange(24, dtype=np.int8).reshape(6, 4)
    found = graph_weights(quantized_model(numpy_helper.from_array(values, "w")))
    assert found.parameters == 24 + 4
    assert found.nonzero_parameters == 23 + 4
    assert found.nonzero_bits == 8 * 23 + 32 * 4
    assert found.stored_bytes == 24 + 4 + 16 + 16  # weights, scale, two 64-bit sizes, bias


def test_four_bit_weights_are_packed_in_pairs():
    packed = helper.make_tensor("w", TensorProto.INT4, [6, 4], [1] * 23 + [0])
    found = graph_weights(quantized_model(packed))
    assert (found.parameters, found.nonzero_parameters) == (28, 27)
    assert found.nonzero_bits == 4 * 23 + 32 * 4
    assert found.stored_bytes == 12 + 4 + 16 + 16


def test_no_parameters_are_not_sparse():
    assert module_weights(nn.ReLU()).sparsity_percent == 0.0
