"""4-bit weights: half the bytes in the file, the same values in an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from rcompress.engines import RunOptions, build_engine, load_engine
from rcompress.engines.graph_io import opset_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.measure.size import graph_weights
from rcompress.methods.int4 import widened
from rcompress.methods.placement import LayerBits
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from tests.graphs import images, residual

BATCH = torch.from_numpy(images(32))
WAYS = {
    "w4a8": QuantizeOptions(bits=LayerBits(4)),
    "w4a8 per tensor": QuantizeOptions(bits=LayerBits(4), per_channel=False),
    "w4": QuantizeOptions(bits=LayerBits(4, activations=False)),
    "w4 in groups": QuantizeOptions(bits=LayerBits(4, activations=False), group=16),
}


def quantized(way: str) -> onnx.ModelProto:
    return quantize_onnx(residual(width=16), [BATCH], 32, WAYS[way]).model


def run(made: onnx.ModelProto) -> np.ndarray:
    with torch.inference_mode():
        return TorchGraph(made)(BATCH).numpy()


def kinds(made: onnx.ModelProto) -> list[int]:
    return [tensor.data_type for tensor in made.graph.initializer if tensor.name.endswith("_quantized")]


def test_what_the_pytorch_executor_does_not_know_is_taken_as_it_is() -> None:
    made = quantized("w4a8")
    (node,) = (node for node in made.graph.node if node.op_type == "Add")
    node.op_type = "Sum"
    assert "Sum" in {node.op_type for node in widened(made).graph.node}


@pytest.mark.parametrize("way", WAYS)
def test_the_file_holds_int4_and_an_engine_gets_the_same_values(way: str) -> None:
    made = quantized(way)
    assert opset_of(made) >= 21 and kinds(made) == [TensorProto.INT4] * 3
    wide = widened(made)
    assert TensorProto.INT4 not in {tensor.data_type for tensor in wide.graph.initializer}
    assert kinds(wide) == ([] if "groups" in way else [TensorProto.INT8] * 3)
    np.testing.assert_array_equal(run(wide), run(made))
    onnx.checker.check_model(wide, full_check=True)


def test_four_bits_take_half_the_bytes() -> None:
    eight = quantize_onnx(residual(width=16), [BATCH], 32).model
    values = sum(int(np.prod(shape)) for shape in ((16, 3, 3, 3), (16, 16, 3, 3), (4, 16)))
    saved = graph_weights(eight).stored_bytes - graph_weights(quantized("w4a8")).stored_bytes
    assert values // 2 <= saved < values // 2 + 100  # zero points shrink too


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_both_cpu_engines_read_int4_files(tmp_path: Path, way: str, backend: str) -> None:
    path = tmp_path / "w4.onnx"
    onnx.save(quantized(way), path)
    expected = run(quantized(way))
    found = load_engine(path, backend, RunOptions(threads=1)).run(BATCH.numpy())
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_widened_weights_run_in_int8(tmp_path: Path, backend: str) -> None:
    suffix = ".xml" if backend == "openvino" else ".onnx"
    path = build_engine(widened(quantized("w4a8")), None, tmp_path / f"q{suffix}", backend)
    assert load_engine(path, backend, RunOptions(threads=1)).info.executed["I8"] >= 2  # both convolutions
