"""Cross-layer equalization: the same function, other ranges."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from rcompress.engines.torch_graph import TorchGraph
from rcompress.methods.equalization import equalized
from tests.graphs import images, model, residual, tensors

RANDOM = np.random.default_rng(0)
SCALES = 10.0 ** RANDOM.uniform(-2, 2, 8)  # what another parametrisation of the same function may look like


def chain(middle: str = "Relu", groups: int = 1) -> onnx.ModelProto:
    """Two convolutions with channels of very unlike ranges, and a pool behind them."""
    w1 = RANDOM.standard_normal((8, 3, 3, 3)) * SCALES[:, None, None, None]
    w2 = RANDOM.standard_normal((8, 8 // groups, 3, 3))
    w2 = w2 / (SCALES[None, :, None, None] if groups == 1 else SCALES[:, None, None, None])
    constants = tensors(w1=w1, b1=0.1 * SCALES, w2=w2, low=np.array(0.0), high=np.array(6.0))
    bounds = ["low", "high"] if middle == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1"),
        helper.make_node(middle, ["c1", *bounds], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", group=groups),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return model(nodes, constants, output=("batch", 8))


def run(made: onnx.ModelProto) -> np.ndarray:
    with torch.inference_mode():
        return TorchGraph(made)(torch.from_numpy(images(16))).numpy()


def largest(made: onnx.ModelProto, name: str, axis: int) -> np.ndarray:
    values = numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == name))
    return np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis))


@pytest.mark.parametrize("middle", ["Relu", "LeakyRelu"])
@pytest.mark.parametrize("groups", [1, 8])
def test_outputs_stay_and_ranges_meet(middle: str, groups: int) -> None:
    before = chain(middle, groups)
    after, pairs = equalized(before)
    assert pairs == 1
    np.testing.assert_allclose(run(after), run(before), rtol=1e-4, atol=1e-4)
    made, read = largest(after, "w1", 0), largest(after, "w2", 1 if groups == 1 else 0)
    np.testing.assert_allclose(made, read, rtol=1e-3)
    assert largest(before, "w1", 0).max() / largest(before, "w1", 0).min() > 100


def test_a_clip_is_no_relu() -> None:
    assert equalized(chain("Clip"))[1] == 0


def test_what_a_residual_add_reads_is_left_alone() -> None:
    before = residual()  # conv1's output is read by conv2 and by the add
    after, pairs = equalized(before)
    assert pairs == 0 and after == before


def test_shared_weights_are_left_alone() -> None:
    made = chain()
    made.graph.node.append(helper.make_node("Conv", ["r1", "w2"], ["unused"]))
    assert equalized(made)[1] == 0


@pytest.mark.parametrize("weight", [0.0, 1e-9])
def test_dead_channels_are_harmless(weight: float) -> None:
    """Of weights next to nothing, the bias alone remains: it must not set the range of the whole tensor."""
    made = chain()
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    values = numpy_helper.to_array(constants["w1"]).copy()
    values[3] = weight
    constants["w1"].CopyFrom(numpy_helper.from_array(values, "w1"))
    after, _ = equalized(made)
    np.testing.assert_allclose(run(after), run(made), rtol=1e-4, atol=1e-4)
    biases = [
        numpy_helper.to_array(next(t for t in graph.graph.initializer if t.name == "b1"))
        for graph in (made, after)
    ]
    assert biases[1][3] == biases[0][3]
