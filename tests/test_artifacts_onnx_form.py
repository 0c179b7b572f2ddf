"""Graphs that say the same in other ways are read alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.engines.graph_io import graph_input, shape_of
from tests.graphs import model, residual, tensors


def saved(made: onnx.ModelProto, path: Path) -> Path:
    onnx.save(made, path)
    return path


def old_form(made: onnx.ModelProto) -> onnx.ModelProto:
    """As IR version 3 wants it: every weight is an input too."""
    for tensor in made.graph.initializer:
        made.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    made.ir_version = 3
    onnx.checker.check_model(made)
    return made


def test_weights_are_no_inputs(tmp_path: Path) -> None:
    found = read_onnx(saved(old_form(residual(opset=9)), tmp_path / "a.onnx")).model
    assert [value.name for value in found.graph.input] == ["x"]
    onnx.checker.check_model(found)


def test_old_graphs_are_quantized_and_halved(rcompress, tmp_path: Path) -> None:
    source = saved(old_form(residual(opset=9)), tmp_path / "a.onnx")
    for words in (("--activation-bits", "none"), ("--fp16",)):
        run = rcompress("quantize", source, *words)
        assert run.code == 0, run.err


def test_constant_nodes_are_initializers(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.arange(3, dtype=np.float32).reshape(3, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=value),
        helper.make_node("Constant", [], ["axes"], value_ints=[2, 3]),
        helper.make_node("Mul", ["x", "k"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("ReduceMean", ["a", "axes"], ["y"], keepdims=0),
    ]
    made = model(nodes, tensors(b=1.0), output=("batch", 3))
    found = read_onnx(saved(made, tmp_path / "a.onnx")).model.graph
    assert {tensor.name for tensor in found.initializer} == {"k", "axes", "b"}
    assert [node.op_type for node in found.node] == ["Mul", "Add", "ReduceMean"]


def test_sizes_that_are_none_are_open(rcompress, tmp_path: Path) -> None:
    for size in (-1, 0):
        made = residual()
        for value in (made.graph.input[0], made.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = size
        del made.graph.value_info[:]
        source = saved(made, tmp_path / f"{size}.onnx")
        assert shape_of(graph_input(read_onnx(source).model))[0] is None
        run = rcompress("quantize", source, "--activation-bits", "none")
        assert run.code == 0, run.err
