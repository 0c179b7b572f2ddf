"""AdaRound against all roundings there are; corrected biases; a graph run node by node."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from rcompress.engines.torch_graph import TorchGraph
from rcompress.engines.torch_node import Node
from rcompress.methods.adaround import Rounding, rounded
from rcompress.methods.layer_rows import Rows, graph_form, layer_rows, matrix_form, outputs_of
from rcompress.methods.lockstep import Walk
from rcompress.methods.placement import LayerBits
from rcompress.methods.quantize import QuantizeOptions, plan_quantization, quantize_onnx
from rcompress.methods.reconstruction import ReconstructionOptions, quantized_layers, reconstruct
from tests.graphs import images, residual

BATCHES = list(torch.from_numpy(images(64)).split(16))
W4A8 = QuantizeOptions(bits=LayerBits(weights=4))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def run(made: onnx.ModelProto, observe: object = None) -> Tensor:
    with torch.inference_mode():
        return torch.cat([TorchGraph(made)(batch, observe) for batch in BATCHES])


def error(original: onnx.ModelProto, made: onnx.ModelProto) -> float:
    return float((run(made) - run(original)).square().mean())


def quantized(options: QuantizeOptions = W4A8) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return plan_quantization(residual(), options).model, quantize_onnx(residual(), BATCHES, 64, options).model


# AdaRound


@pytest.mark.parametrize("rectified", [False, True])
def test_adaround_finds_nearly_the_best_of_all_roundings(rectified: bool) -> None:
    """Eight weights of one output, inputs that hang together: rounding to nearest is far from the best."""
    random = torch.Generator().manual_seed(4)
    shared = torch.randn(2000, 1, generator=random)
    inputs = shared + 0.3 * torch.randn(2000, 8, generator=random)
    weights = torch.rand(1, 1, 8, generator=random) * 3 - 1.5
    scale, bias = torch.full_like(weights, 0.4), torch.tensor([0.2])
    targets = inputs @ weights[0].t() + bias
    layer = Rounding(weights, scale, 7, bias, rectified)

    def loss(steps: Tensor) -> float:
        found = inputs @ (steps * scale)[0].t() + bias
        return float(((found.relu() - targets.relu()) if rectified else (found - targets)).square().mean())

    lower = torch.floor(weights / scale)
    choices = itertools.product((0.0, 1.0), repeat=8)
    best = min(loss(lower + torch.tensor(choice).view(1, 1, 8)) for choice in choices)
    steps = rounded(layer, Rows(inputs[:, None], targets), 400, generator())
    nearest = torch.round(weights / scale)
    assert ((steps - weights / scale).abs() < 1).all() and torch.equal(steps, steps.round())
    assert loss(steps) < 1.5 * best + 1e-3
    assert loss(steps) < 0.5 * loss(nearest)


def test_adaround_keeps_to_its_levels() -> None:
    weights = torch.tensor([[[9.7, -9.7, 0.3]]])
    rows = Rows(torch.randn(100, 1, 3, generator=generator()), torch.zeros(100, 1))
    steps = rounded(Rounding(weights, torch.ones_like(weights), 7, None, False), rows, 20, generator())
    assert steps.flatten()[:2].tolist() == [7.0, -7.0]


# A layer as a regression


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 1, 2, 1]])
def test_rows_of_a_convolution_give_its_outputs(groups: int, pads: list[int]) -> None:
    node = Node("Conv", "c", ("x", "w"), ("y",), {"group": groups, "pads": pads, "strides": [2, 1]}, 18)
    weight = torch.randn(8, 4 // groups, 3, 3, generator=generator())
    x = torch.randn(5, 4, 9, 9, generator=generator())
    padded = F.pad(x, (pads[1], pads[3], pads[0], pads[2]))
    y = F.conv2d(padded, weight, stride=(2, 1), groups=groups)
    rows = layer_rows(node, weight, [x], [y], 60, generator())
    assert rows.inputs.shape[0] == 60
    matrix = matrix_form(node, weight)
    torch.testing.assert_close(outputs_of(rows.inputs, matrix), rows.targets)
    assert torch.equal(graph_form(node, matrix, weight), weight)


@pytest.mark.parametrize(("op", "trans"), [("Gemm", 1), ("Gemm", 0), ("MatMul", 0)])
def test_rows_of_a_matrix_product_give_its_outputs(op: str, trans: int) -> None:
    node = Node(op, "m", ("x", "w"), ("y",), {"transB": trans}, 18)
    weight = torch.randn((3, 6) if trans else (6, 3), generator=generator())
    x = torch.randn(5, 6, generator=generator())
    y = x @ (weight.t() if trans else weight)
    rows = layer_rows(node, weight, [x], [y], 60, generator())
    torch.testing.assert_close(outputs_of(rows.inputs, matrix_form(node, weight)), y)
    assert torch.equal(graph_form(node, matrix_form(node, weight), weight), weight)


# Node by node


def test_a_walk_sees_what_the_graph_computes_and_holds_no_more_than_it_needs() -> None:
    made = residual()
    seen: dict[str, Tensor] = {}
    TorchGraph(made)(BATCHES[0], lambda name, value: seen.update({name: value.detach()}))
    walk = Walk(made, BATCHES[:1], keep=["c1"])
    torch.testing.assert_close(walk.until("c2")[0], seen["c2"])
    torch.testing.assert_close(walk.until("c1")[0], seen["c1"])
    torch.testing.assert_close(walk.until("y")[0], seen["y"])
    walk.take("c1")
    assert set(walk._states[0]) <= {"y", *(t.name for t in made.graph.initializer)}


# Whole graphs


def test_layers_are_found_behind_their_integers() -> None:
    assert [layer.output for layer in quantized_layers(quantized()[1])] == ["c1", "c2", "y"]
    grouped = QuantizeOptions(bits=LayerBits(4, activations=False), group=9)
    assert [layer.output for layer in quantized_layers(quantized(grouped)[1])] == ["c1", "c2", "y"]


@pytest.mark.parametrize("group", [None, 9])
def test_adaround_brings_a_graph_nearer_to_its_origin(group: int | None) -> None:
    options = W4A8 if group is None else QuantizeOptions(bits=LayerBits(4, activations=False), group=group)
    original, before = quantized(options)
    after = reconstruct(original, before, BATCHES, ReconstructionOptions(adaround=200))
    assert error(original, after) < 0.5 * error(original, before)
    for tensor in after.graph.initializer:
        if tensor.name.endswith("_quantized"):
            assert np.abs(numpy_helper.to_array(tensor).astype(int)).max() <= 7


def test_corrected_biases_give_each_channel_its_mean() -> None:
    original, before = quantized()
    after = reconstruct(original, before, BATCHES, ReconstructionOptions(bias_correction=True))
    assert error(original, after) < 0.5 * error(original, before)

    def means(made: onnx.ModelProto) -> Tensor:
        walk = Walk(made, BATCHES)
        return torch.cat(walk.until("c2")).mean(dim=(0, 2, 3))

    assert float((means(after) - means(original)).abs().max()) < 1e-4
    assert float((means(before) - means(original)).abs().max()) > 1e-2


def test_a_layer_without_bias_gets_one() -> None:
    made = residual()
    del made.graph.node[0].input[2]
    before = quantize_onnx(made, BATCHES, 64, W4A8).model
    after = reconstruct(made, before, BATCHES, ReconstructionOptions(bias_correction=True))
    onnx.checker.check_model(after, full_check=True)
    assert error(made, after) < 0.5 * error(made, before)


def test_reconstruction_is_the_same_again() -> None:
    original, before = quantized()
    options = ReconstructionOptions(adaround=30, bias_correction=True, seed=3)
    assert reconstruct(original, before, BATCHES, options) == reconstruct(original, before, BATCHES, options)


def test_a_shared_bias_is_not_changed_for_both() -> None:
    made = residual()
    made.graph.node[2].input[2] = "b1"
    before = quantize_onnx(made, BATCHES, 64, W4A8).model
    after = reconstruct(made, before, BATCHES, ReconstructionOptions(bias_correction=True))
    biases = [node.input[2] for node in after.graph.node if node.op_type == "Conv"]
    assert len(set(biases)) == 2 and "b1" not in biases
    assert error(made, after) < 0.5 * error(made, before)
