"""The PyTorch executor agrees with unoptimised ONNX Runtime, operator by operator and on whole networks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from tests.graphs import images, model, residual, resnet, tensors


def reference(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(made.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def executed(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return TorchGraph(made)(torch.from_numpy(x)).numpy()


def node(op: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, ["x", *inputs], ["y"], "it", **attributes)


SIMPLE = {
    "relu": (node("Relu"), {}),
    "leaky": (node("LeakyRelu", alpha=0.2), {}),
    "elu": (node("Elu", alpha=0.5), {}),
    "sigmoid": (node("Sigmoid"), {}),
    "hardsigmoid": (node("HardSigmoid", alpha=1 / 6, beta=0.5), {}),
    "hardswish": (node("HardSwish"), {}),
    "tanh": (node("Tanh"), {}),
    "erf": (node("Erf"), {}),
    "softmax": (node("Softmax", axis=1), {}),
    "logsoftmax": (node("LogSoftmax", axis=1), {}),
    "clip": (node("Clip", "low", "high"), {"low": 0.0, "high": 1.0}),
    "clip one side": (node("Clip", "", "high"), {"high": 0.5}),
    "prelu": (node("PRelu", "slope"), {"slope": np.full((3, 1, 1), 0.3)}),
    "mul": (node("Mul", "k"), {"k": np.arange(3.0).reshape(3, 1, 1)}),
    "div": (node("Div", "k"), {"k": 3.0}),
    "max": (node("Max", "k"), {"k": np.zeros((3, 1, 1))}),
    "pow": (node("Pow", "k"), {"k": 2.0}),
    "maxpool ceil": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), {}),
    "maxpool padded": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    "maxpool uneven": (node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 1]), {}),
    "avgpool": (node("AveragePool", kernel_shape=[2, 2], strides=[2, 2]), {}),
    "avgpool padded": (node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    "avgpool counted": (
        node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        {},
    ),
    "avgpool same": (node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), {}),
    "avgpool ceil": (node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), {}),
    "gap": (node("GlobalAveragePool"), {}),
    "mean": (node("ReduceMean", "axes", keepdims=0), {"axes": np.array([2, 3])}),
    "flatten": (node("Flatten", axis=2), {}),
    "flatten from the end": (node("Flatten", axis=-3), {}),
    "flatten all": (node("Flatten", axis=4), {}),
    "reshape": (node("Reshape", "shape"), {"shape": np.array([0, -1, 4])}),
    "transpose": (node("Transpose", perm=[0, 2, 3, 1]), {}),
    "gather": (node("Gather", "i", axis=1), {"i": np.array([[2, -1], [0, 1]])}),
    "slice": (
        node("Slice", "s", "e", "a", "t"),
        {"s": np.array([6, 1]), "e": np.array([-100, 100]), "a": np.array([2, 3]), "t": np.array([-2, 3])},
    ),
    "pad": (node("Pad", "p", "v"), {"p": np.array([0, 0, 1, 2, 0, 0, 3, 4]), "v": np.float32(0.5)}),
    "pad reflect": (node("Pad", "p", mode="reflect"), {"p": np.array([0, 0, 1, 2, 0, 0, 3, 4])}),
    "unsqueeze": (node("Unsqueeze", "a"), {"a": np.array([1, -1])}),
    "expand": (node("Expand", "s"), {"s": np.array([2, 1, 3, 8, 8])}),
    "batchnorm": (
        node("BatchNormalization", "s", "b", "m", "v", epsilon=1e-3),
        {"s": np.ones(3) * 2, "b": np.ones(3), "m": np.arange(3.0), "v": np.array([1.0, 2.0, 3.0])},
    ),
    "layernorm": (node("LayerNormalization", "s", "b", axis=-1), {"s": np.arange(8.0), "b": np.ones(8)}),
    "resize": (
        node("Resize", "", "", "size", mode="linear", coordinate_transformation_mode="half_pixel"),
        {"size": np.array([2, 3, 5, 12])},
    ),
    "conv grouped": (
        node("Conv", "w", group=3, strides=[2, 1], dilations=[1, 2], pads=[0, 1, 2, 1]),
        {"w": np.linspace(-1, 1, 3 * 9).reshape(3, 1, 3, 3)},
    ),
    "conv same": (
        node("Conv", "w", auto_pad="SAME_LOWER", strides=[2, 2]),
        {"w": np.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4)},
    ),
    "matmul": (node("MatMul", "w"), {"w": np.linspace(-1, 1, 40).reshape(8, 5)}),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_operator_agrees_with_onnxruntime(name: str) -> None:
    made_node, constants = SIMPLE[name]
    made = model([made_node], tensors(**constants), (2, 3, 8, 8), None)
    x = images(2)
    expected = reference(made, x)
    found = executed(made, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5)


def test_gemm_takes_its_attributes() -> None:
    constants = tensors(w=np.linspace(-1, 1, 24).reshape(4, 6), b=np.arange(4.0))
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)
    made = model([gemm], constants, (2, 6))
    x = images(1).reshape(-1)[:12].reshape(2, 6)
    np.testing.assert_allclose(executed(made, x), reference(made, x), rtol=1e-6)


@pytest.mark.parametrize(("kind", "low", "high"), [(np.int8, -128, 127), (np.uint8, 0, 255)])
def test_quantize_saturates_and_rounds_half_to_even(kind: type, low: int, high: int) -> None:
    zero = kind(3)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    made = model(nodes, tensors(s=np.float32(0.5), z=zero), (1, 8), (1, 8))
    x = np.array([[0.25, 0.75, 1.25, -0.25, -1e4, 1e4, 0.0, 0.74]], np.float32)
    found = executed(made, x)
    np.testing.assert_array_equal(found, reference(made, x))
    assert found[0, 4] == (low - 3) * 0.5 and found[0, 5] == (high - 3) * 0.5


def test_gradients_pass_the_rounding_within_the_range_only() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    made = model(nodes, tensors(s=np.float32(0.5), z=np.int8(0)), (1, 3), (1, 3))
    x = torch.tensor([[0.3, -7.7, 1000.0]], requires_grad=True)
    TorchGraph(made)(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_weights_of_the_graph_can_be_trained() -> None:
    graph = TorchGraph(residual())
    graph(torch.from_numpy(images(2))).square().mean().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())
    assert set(graph.slots) == {"w1", "b1", "w2", "b2", "w3", "b3"}


def test_intermediate_tensors_are_observed_in_order_and_forgotten() -> None:
    seen: list[str] = []
    graph = TorchGraph(residual())
    graph(torch.from_numpy(images(1)), lambda name, value: seen.append(name))
    assert seen == ["x", "c1", "r1", "c2", "a", "r2", "p", "f", "y"]


def test_unknown_operator_is_named_with_its_node() -> None:
    made = model([node("Softplus")], [], (1, 3, 8, 8), None)
    with pytest.raises(RcompressError, match="node it is a Softplus"):
        TorchGraph(made)


@pytest.mark.parametrize("profile", ["cpu", "tensorrt"])
def test_quantized_graph_picks_the_classes_of_unoptimised_onnxruntime(profile: str) -> None:
    x = images(200)
    batches = [torch.from_numpy(x[:100]), torch.from_numpy(x[100:])]
    quantized = quantize_onnx(residual(), batches, 200, QuantizeOptions(profile=profile)).model
    assert (executed(quantized, x).argmax(1) == reference(quantized, x).argmax(1)).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet20", {"shortcut": "pad"}), ("resnet18", {"stem": "cifar"})],
)
def test_our_resnets_agree(name: str, options: dict[str, str]) -> None:
    made, _ = resnet(name, **options)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    expected = reference(made, x)
    np.testing.assert_allclose(executed(made, x), expected, atol=1e-5 * np.abs(expected).max())


def test_foreign_file_agrees(test_data) -> None:
    made = onnx.load(test_data / "models" / "vnncomp2021" / "resnet_2b.onnx")
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    np.testing.assert_allclose(executed(made, x), reference(made, x), atol=1e-5)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [2, -1])
def test_old_opset_softmax_flattens(op: str, axis: int) -> None:
    made = model([node(op, axis=axis)], [], (2, 3, 8, 8), None, opset=11)
    x = images(2)
    np.testing.assert_allclose(executed(made, x), reference(made, x), atol=2e-6)


def test_logits_far_apart_have_finite_logarithms() -> None:
    made = model([node("LogSoftmax", axis=1)], [], (1, 3, 8, 8), None)
    x = np.float32(300.0) * images(1)
    np.testing.assert_allclose(executed(made, x), reference(made, x), rtol=1e-5)


def test_averages_with_gaps_are_refused() -> None:
    made = model(
        [node("AveragePool", kernel_shape=[2, 2], dilations=[2, 2])], [], (2, 3, 8, 8), None, opset=19
    )
    with pytest.raises(RcompressError, match="averages with gaps"):
        executed(made, images(2))


def test_constant_nodes_are_constants() -> None:
    """Zero points too, whose type says to which integers a QuantizeLinear rounds: exporters write them so."""
    zero = onnx.numpy_helper.from_array(np.zeros((), np.int8))
    made = model(
        [
            helper.make_node("Constant", [], ["scale"], value_float=0.125),
            helper.make_node("Constant", [], ["zero"], value=zero),
            helper.make_node("Constant", [], ["axes"], value_ints=[2, 3]),
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("ReduceMean", ["d", "axes"], ["y"], keepdims=0),
        ],
        [],
        (2, 3, 8, 8),
        None,
    )
    x = images(2)
    assert reference(made, x).min() < 0
    np.testing.assert_allclose(executed(made, x), reference(made, x), atol=1e-6)


def test_uint8_images_and_casts() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["f", "m"], ["y"]),
    ]
    made = model(nodes, tensors(m=np.full((1, 3, 1, 1), 100.0)), (1, 4, 4, 3), None, dtype=TensorProto.UINT8)
    x = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(executed(made, x), reference(made, x))
