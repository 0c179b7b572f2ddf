"""MACs and parameters against hand computation, torchvision's own figures, and between module and graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import ResNet18_Weights, ResNet50_Weights

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.export import onnx_from_module
from rcompress.measure.complexity import graph_complexity, module_complexity
from rcompress.measure.size import graph_weights
from rcompress.models import build_model


def tensor(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def graph(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], shape: list[int | str], rank: int = 4
) -> onnx.ModelProto:
    """A model from ``x`` to ``y``."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, tensors))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 12, (3, 5), stride=2, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(images)).mean((2, 3)))


def test_a_module_by_hand():
    found = module_complexity(Small(), (8, 16, 20))
    rows = {cost.name: cost for cost in found.layers}
    assert list(rows) == ["conv", "norm", "head"]
    assert rows["conv"].output_shape == (1, 12, 8, 9)
    assert rows["conv"].macs == 12 * 8 * 9 * (8 // 4) * 3 * 5
    assert rows["conv"].parameters == 12 * 2 * 15 + 12
    assert (rows["norm"].macs, rows["norm"].parameters) == (0, 24)
    assert (rows["head"].macs, rows["head"].parameters) == (84, 91)
    assert found.macs == rows["conv"].macs + 84
    assert found.parameters == sum(row.parameters for row in found.layers)


def test_counting_leaves_the_module_as_it_was():
    module = Small().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module_complexity(module, (8, 16, 20))
    assert module.training
    assert not any(layer._forward_hooks for layer in module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("builder", "weights"), [(resnet18, ResNet18_Weights.DEFAULT), (resnet50, ResNet50_Weights.DEFAULT)]
)
def test_torchvisions_own_figures(builder, weights):
    found = module_complexity(builder(), (3, 224, 224))
    assert found.parameters == weights.meta["num_params"]
    assert found.macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=5e-4)


@pytest.mark.parametrize("arch", ["resnet20", "resnet18"])
def test_a_module_and_its_export_agree(arch):
    module = build_model(arch, 10).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.bias)
    preprocessing = Preprocessing((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    exported = onnx_from_module(module, ModelSpec(10, preprocessing, arch=arch))
    ours, theirs = module_complexity(module, (3, 32, 32)), graph_complexity(exported)
    assert ours.macs == theirs.macs
    convolutions = [cost for cost in ours.layers if cost.kind == "Conv2d"]
    nodes = [cost for cost in theirs.layers if cost.kind == "Conv"]
    assert sorted(c.macs for c in convolutions) == sorted(n.macs for n in nodes)
    assert sorted(c.output_shape for c in convolutions) == sorted(n.output_shape for n in nodes)
    # folding a BatchNorm keeps one bias per channel of its two parameters
    folded = sum(layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    assert theirs.parameters == ours.parameters - folded


GRAPHS = {
    "grouped convolution": (
        graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2])],
            [tensor("w", 6, 2, 3, 3)],
            ["N", 4, 9, 9],
        ),
        6 * 4 * 4 * 2 * 9,
        108,
    ),
    "transposed convolution": (
        graph(
            [helper.make_node("ConvTranspose", ["x", "w"], ["y"])], [tensor("w", 4, 5, 3, 3)], [1, 4, 7, 7]
        ),
        4 * 7 * 7 * 5 * 9,
        180,
    ),
    "gemm with a transposed weight": (
        graph(
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
            [tensor("w", 10, 6), tensor("b", 10)],
            ["N", 6],
            rank=2,
        ),
        60,
        70,
    ),
    "batched matmul": (
        graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor("w", 6, 5)], ["N", 3, 4, 6]),
        3 * 4 * 6 * 5,
        30,
    ),
    "a batch built in": (
        graph([helper.make_node("Conv", ["x", "w"], ["y"])], [tensor("w", 6, 4, 1, 1)], [16, 4, 5, 5]),
        6 * 25 * 4,
        24,
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_by_hand(name):
    model, macs, parameters = GRAPHS[name]
    found = graph_complexity(model)
    assert (found.macs, found.parameters) == (macs, parameters)


def test_quantizers_belong_to_the_layer_they_feed():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"], name="conv"),
    ]
    tensors = [tensor("w", 6, 4, 3, 3, dtype=np.int8), tensor("s"), tensor("z", dtype=np.int8)]
    found = graph_complexity(graph(nodes, tensors, ["N", 4, 5, 5]))
    (conv,) = found.layers
    assert (conv.name, conv.kind, conv.output_shape) == ("conv", "Conv", (1, 6, 3, 3))
    assert (conv.parameters, conv.macs) == (216, 6 * 9 * 36)
    assert found.parameters == 216


def test_running_statistics_and_bounds_are_no_parameters():
    nodes = [
        helper.make_node(
            "BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["h"], name="norm"
        ),
        helper.make_node("Clip", ["h", "low", "high"], ["y"], name="relu6"),
    ]
    tensors = [tensor(name, 4) for name in ("scale", "bias", "mean", "variance")]
    model = graph(nodes, [*tensors, tensor("low"), tensor("high")], ["N", 4, 5, 5])
    found = graph_complexity(model)
    assert found.parameters == graph_weights(model).parameters == 8
    assert [(cost.name, cost.parameters) for cost in found.layers] == [("norm", 8), ("relu6", 0)]
    assert graph_weights(model).stored_bytes == 4 * (4 * 4 + 2)


def test_unknown_shapes_are_not_taken_for_zero():
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    found = graph_complexity(graph(nodes, [tensor("w", 6, 4, 3, 3)], ["N", 4, "H", "W"]))
    assert found.macs is None
    assert found.layers[0].macs is None
    assert found.parameters == 216


def test_integer_operators_are_not_taken_for_free():
    """QOperator files: scales and zero points are no parameters, and the cost is not said to be nothing."""
    inputs = ["x", "s", "z", "w", "s", "z", "s", "z"]
    model = graph(
        [helper.make_node("QLinearConv", inputs, ["y"])],
        [tensor("s"), tensor("z", dtype=np.int8), tensor("w", 4, 3, 3, 3, dtype=np.int8)],
        ["n", 3, 8, 8],
    )
    found = graph_complexity(model)
    assert found.macs is None
    assert found.parameters == 4 * 3 * 3 * 3
