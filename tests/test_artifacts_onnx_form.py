"""Graphs that say the same in other ways are read alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.engines import RunOptions, load_engine
from rcompress.engines.graph_io import graph_input, shape_of
from rcompress.errors import RcompressError
from tests.graphs import images, model, residual, tensors


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


def outputs(path: Path) -> np.ndarray:
    return load_engine(path, "onnxruntime", RunOptions(threads=1)).run(images(4))


def test_weights_are_no_inputs(tmp_path: Path) -> None:
    found = read_onnx(saved(old_form(residual(opset=9)), tmp_path / "a.onnx")).model
    assert [value.name for value in found.graph.input] == ["x"]
    onnx.checker.check_model(found)


def test_old_graphs_are_quantized_and_halved(rcompress, tmp_path: Path) -> None:
    source = saved(old_form(residual(opset=9)), tmp_path / "a.onnx")
    expected = outputs(source)
    for name, words in (("a-w8.onnx", ("--activation-bits", "none")), ("a-fp16.onnx", ("--fp16",))):
        run = rcompress("quantize", source, *words)
        assert run.code == 0, run.err
        assert np.abs(outputs(tmp_path / name) - expected).max() < 0.02 * np.abs(expected).max()


def test_constant_nodes_are_initializers(tmp_path: Path) -> None:
    given = {
        "k": {"value": numpy_helper.from_array(np.arange(3, dtype=np.float32).reshape(3, 1, 1))},
        "axes": {"value_ints": [2, 3]},
        "one": {"value_float": 1.0},
        "some": {"value_floats": [0.5, 1.5]},
        "count": {"value_int": 7},
        "words": {"value_strings": ["a"]},
    }
    nodes = [
        *(helper.make_node("Constant", [], [name], **value) for name, value in given.items()),
        helper.make_node("Mul", ["x", "k"], ["m"]),
        helper.make_node("Add", ["m", "one"], ["a"]),
        helper.make_node("ReduceMean", ["a", "axes"], ["y"], keepdims=0),
    ]
    found = read_onnx(saved(model(nodes, [], output=("batch", 3)), tmp_path / "a.onnx")).model.graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.initializer}
    assert {name: (value.dtype.name, value.tolist()) for name, value in held.items()} == {
        "k": ("float32", [[[0.0]], [[1.0]], [[2.0]]]),
        "axes": ("int64", [2, 3]),
        "one": ("float32", 1.0),
        "some": ("float32", [0.5, 1.5]),
        "count": ("int64", 7),
    }
    assert [node.op_type for node in found.node] == ["Constant", "Mul", "Add", "ReduceMean"]


def test_what_is_computed_from_constants_is_a_weight(rcompress, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((4, 192), np.float32))),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("MatMul", ["f", "t"], ["y"]),
    ]
    source = saved(model(nodes, []), tmp_path / "a.onnx")
    run = rcompress("quantize", source, "--activation-bits", "none")
    assert run.code == 0, run.err
    kinds = {tensor.data_type for tensor in read_onnx(tmp_path / "a-w8.onnx").model.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_odd_constants_are_left_to_the_checker(tmp_path: Path) -> None:
    """None of a Constant's attributes is required, and other domains may call their operators so."""
    for name, domain in (("bare", ""), ("own", "com.example")):
        made = residual()
        made.graph.node.insert(0, helper.make_node("Constant", [], ["k"], domain=domain))
        made.opset_import.append(helper.make_opsetid("com.example", 1))
        found = read_onnx(saved(made, tmp_path / f"{name}.onnx")).model
        assert found.graph.node[0].op_type == "Constant"


def test_constants_outside_the_file_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 8))
    outside = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[8], name="k")
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="secret.bin")
    made = residual()
    made.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=outside))
    with pytest.raises(RcompressError, match="keeps its weights in another file"):
        read_onnx(saved(made, tmp_path / "a.onnx"))


def test_constants_that_only_an_inner_graph_reads_are_kept(rcompress, tmp_path: Path) -> None:
    made = residual()
    gemm = made.graph.node[-1]
    gemm.output[0] = "logits"

    def branch(sign: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(sign, ["logits", "k"], ["out"])], sign, [], [value])

    made.graph.node.append(
        helper.make_node("If", ["yes"], ["y"], then_branch=branch("Add"), else_branch=branch("Sub"))
    )
    made.graph.initializer.extend(tensors(k=2.0, yes=np.array(True)))
    source = saved(made, tmp_path / "a.onnx")
    expected = outputs(source)
    run = rcompress("quantize", source, "--activation-bits", "none")
    assert run.code == 0, run.err
    assert np.abs(outputs(tmp_path / "a-w8.onnx") - expected).max() < 0.02 * np.abs(expected).max()


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
