"""Quantization-aware training: the gradients, the graph that is trained and written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rcompress.engines import BuildOptions, backend_status, build_engine
from rcompress.engines.plan_file import read_sidecar
from rcompress.engines.torch_graph import TorchGraph
from rcompress.methods.placement import LayerBits
from rcompress.methods.qat import QatOptions, parameter_groups
from rcompress.methods.qat_graph import TrainableGraph, parameter, trainable_graph, written_back
from rcompress.methods.qat_scales import LearnedScales, ObservedScales
from rcompress.methods.quantize import QuantizeOptions, plan_quantization, quantize_onnx
from rcompress.training import Recipe
from tests.graphs import SPEC, images, model, residual, tensors

needs_rtx = pytest.mark.skipif(
    backend_status("tensorrt-rtx").version is None, reason="tensorrt-rtx is not installed"
)


def trainable(
    original: onnx.ModelProto | None = None, bits: int = 8, group: int | None = None, **options: object
) -> TrainableGraph:
    original = original or residual()
    how = QuantizeOptions(bits=LayerBits(bits, group is None), group=group, **options)  # type: ignore[arg-type]
    quantized = quantize_onnx(original, [torch.from_numpy(images(64))], 64, how).model
    return trainable_graph(quantized, plan_quantization(original, how).model)


def logits(graph: onnx.ModelProto | torch.nn.Module, count: int = 32) -> torch.Tensor:
    module = TorchGraph(graph) if isinstance(graph, onnx.ModelProto) else graph
    with torch.inference_mode():
        return module(torch.from_numpy(images(count, seed=5)))


def stepped(graph: TrainableGraph, constraint: LearnedScales | ObservedScales, steps: int = 5) -> TorchGraph:
    """A few large steps of plain descent, so that every kind of parameter moves."""
    module = graph.module
    constraint.attach(module)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for step in range(steps):
        loss = module(torch.from_numpy(images(16, seed=step))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        constraint.after_backward(module)
        optimizer.step()
        constraint.after_step(module)
    return module


# The operator


def paper(values: np.ndarray, scale: float, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives by the values and by the scale: Esser et al. 2020, section 2.1."""
    scaled = values / scale
    inside = (scaled > low) & (scaled < high)
    by_scale = np.where(inside, np.rint(scaled) - scaled, np.where(scaled <= low, low, high))
    return inside.astype(np.float32), by_scale


@pytest.mark.parametrize(
    ("kind", "zero", "low", "high"),
    [(np.int8, 0, -128, 127), (np.uint8, 0, 0, 255), (np.uint8, 128, -128, 127)],
)
def test_gradients_are_those_of_the_paper(kind: type, zero: int, low: int, high: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    scale = 0.037
    graph = TorchGraph(model(nodes, tensors(s=np.float32(scale), z=kind(zero)), (1, 400), (1, 400)))
    assert graph.operator_counts() == {"FakeQuantize": 1}
    random = np.random.default_rng(0)
    values = (random.standard_normal((1, 400)) * 6).astype(np.float32)
    incoming = random.standard_normal((1, 400)).astype(np.float32)
    x = torch.from_numpy(values).requires_grad_()
    graph(x).backward(torch.from_numpy(incoming))
    by_values, by_scale = paper(values, scale, low, high)
    np.testing.assert_allclose(x.grad, incoming * by_values, rtol=1e-6)
    found = parameter(graph, "s").grad
    assert float(found) == pytest.approx(float((incoming * by_scale).sum()), rel=1e-4)


def test_each_channel_has_its_own_gradient() -> None:
    node = helper.make_node("FakeQuantize", ["x", "s"], ["y"], axis=0, low=-7, high=7)
    scales = np.array([0.1, 0.2, 0.4], np.float32)
    proto = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 50))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 50))],
        [numpy_helper.from_array(scales, "s")],
    )
    graph = TorchGraph(helper.make_model(proto))
    values = np.random.default_rng(1).standard_normal((3, 50)).astype(np.float32)
    graph(torch.from_numpy(values)).sum().backward()
    expected = [paper(row, float(scale), -7, 7)[1].sum() for row, scale in zip(values, scales, strict=True)]
    np.testing.assert_allclose(parameter(graph, "s").grad, expected, rtol=1e-4, atol=1e-4)


def test_rounding_is_exact_under_autocast() -> None:
    graph = trainable().module
    seen: dict[str, torch.Tensor] = {}
    with torch.autocast("cpu", torch.bfloat16):
        graph(torch.from_numpy(images(4)), lambda name, value: seen.update({name: value}))
    steps = seen["r1_dequantized"] / parameter(graph, "r1_scale")
    assert seen["r1_dequantized"].dtype == torch.float32
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


# The graph that is trained


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, None), (4, 8)])
def test_untrained_it_computes_and_writes_what_it_was_given(bits: int, group: int | None) -> None:
    graph = trainable(bits=bits, group=group)
    assert torch.equal(logits(graph.module), logits(graph.quantized))
    back = written_back(graph, graph.module)
    for given, found in zip(graph.quantized.graph.initializer, back.graph.initializer, strict=True):
        assert given.data_type == found.data_type and given.dims == found.dims, given.name
        np.testing.assert_array_equal(numpy_helper.to_array(given), numpy_helper.to_array(found))


def test_latent_weights_are_those_before_rounding() -> None:
    graph = trainable()
    (name,) = (name for name in graph.weights if name.startswith("w2"))
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in residual().graph.initializer}
    np.testing.assert_array_equal(parameter(graph.module, name).detach(), original["w2"])
    assert set(graph.biases) == {"b1", "b2", "b3"}


def test_learned_rounding_is_kept() -> None:
    """A weight that was rounded the other way starts where it was written, not where it came from."""
    plain = trainable()
    (integers,) = (t for t in plain.quantized.graph.initializer if t.name == "w2_quantized")
    moved = numpy_helper.to_array(integers).copy()
    moved[0, 0, 0, 0] += 3
    integers.CopyFrom(numpy_helper.from_array(moved, integers.name))
    again = trainable_graph(plain.quantized, residual())
    assert torch.equal(logits(again.module), logits(plain.quantized))


@pytest.mark.parametrize("profile", ["cpu", "tensorrt"])
@pytest.mark.parametrize("make", [LearnedScales, ObservedScales])
@pytest.mark.parametrize("bits", [8, 4])
def test_what_was_trained_is_what_is_written(profile: str, make: type, bits: int) -> None:
    graph = trainable(bits=bits, profile=profile)
    before = logits(graph.quantized)
    module = stepped(graph, make(graph))
    after = written_back(graph, module)
    assert torch.equal(logits(after), logits(module))
    assert not torch.allclose(logits(after), before, atol=1e-3)
    kinds = [{t.name: t.data_type for t in g.graph.initializer} for g in (graph.quantized, after)]
    assert kinds[0] == kinds[1]
    assert [node.op_type for node in after.graph.node] == [
        node.op_type for node in graph.quantized.graph.node
    ]


def test_groups_of_weights_are_trained() -> None:
    graph = trainable(bits=4, group=8)
    module = stepped(graph, LearnedScales(graph))
    assert torch.equal(logits(written_back(graph, module)), logits(module))
    observed = trainable(bits=4, group=8)
    module = stepped(observed, ObservedScales(observed))
    assert torch.equal(logits(written_back(observed, module)), logits(module))


def test_fixed_shortcuts_and_other_constants_are_not_trained() -> None:
    selects = np.zeros((8, 3, 1, 1))
    selects[2, 0] = selects[3, 1] = 1.0
    nodes = [
        helper.make_node("Conv", ["x", "fixed"], ["c"], "shortcut"),
        helper.make_node("Clip", ["c", "low", "high"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"], "conv"),
    ]
    constants = tensors(fixed=selects, low=0.0, high=6.0, w=np.linspace(-1, 1, 32).reshape(4, 8, 1, 1))
    graph = trainable(model(nodes, constants, output=("batch", 4, 8, 8)))
    free = {name for name, slot in graph.module.slots.items() if getattr(graph.module, slot).requires_grad}
    assert "w_quantized_latent" in free and "r_scale" in free
    assert not free & {"low", "high", "fixed_quantized_latent", "fixed_scale"}


def test_pooling_shares_the_scale_of_what_it_pools() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "v"], ["y"], "second"),
    ]
    random = np.random.default_rng(0)
    constants = tensors(w=random.standard_normal((8, 3, 3, 3)), v=random.standard_normal((4, 8, 1, 1)))
    graph = trainable(model(nodes, constants, output=("batch", 4, 4, 4)))
    module = stepped(graph, LearnedScales(graph))
    written = {t.name: numpy_helper.to_array(t) for t in written_back(graph, module).graph.initializer}
    given = {t.name: numpy_helper.to_array(t) for t in graph.quantized.graph.initializer}
    assert written["p_scale"] == written["r_scale"] != given["r_scale"]


# How scales move


def test_scale_gradients_are_divided_as_in_the_paper() -> None:
    graph = trainable()
    constraint = LearnedScales(graph)
    constraint.attach(graph.module)
    graph.module(torch.from_numpy(images(8))).square().mean().backward()
    names = {"r1_scale": 8 * 8 * 8 * 255, "w2_scale": 8 * 9 * 127}  # values of one image, of one channel
    before = {name: parameter(graph.module, name).grad.clone() for name in names}
    constraint.after_backward(graph.module)
    for name, product in names.items():
        torch.testing.assert_close(parameter(graph.module, name).grad, before[name] / math.sqrt(product))


def test_learned_scales_stay_positive_and_leave_room_for_biases() -> None:
    graph = trainable()
    constraint = LearnedScales(graph)
    constraint.attach(graph.module)
    with torch.no_grad():
        parameter(graph.module, "r1_scale").fill_(-1.0)
        parameter(graph.module, "b2").fill_(1e8)
    constraint.after_step(graph.module)
    scale, activation = parameter(graph.module, "w2_scale"), parameter(graph.module, "r1_scale")
    assert activation > 0
    assert (1e8 / (scale * activation) < 2**31).all()


def test_observed_scales_follow_the_weights_alone() -> None:
    graph = trainable(bits=4)
    constraint = ObservedScales(graph)
    constraint.attach(graph.module)
    before = {q.scale: parameter(graph.module, q.scale).clone() for q in graph.quantizers}
    with torch.no_grad():
        parameter(graph.module, "w2_quantized_latent").mul_(3.0)
    constraint.after_step(graph.module)
    for quantizer in graph.quantizers:
        factor = 3.0 if quantizer.scale == "w2_scale" else 1.0
        torch.testing.assert_close(parameter(graph.module, quantizer.scale), factor * before[quantizer.scale])
        assert not parameter(graph.module, quantizer.scale).requires_grad


def test_biases_and_scales_have_rates_of_their_own() -> None:
    graph = trainable()
    groups = parameter_groups(graph, Recipe(weight_decay=0.1), QatOptions(bias_rate=2.0, scale_rate=0.5))
    weights, biases, scales = groups(graph.module)
    assert len(weights["params"]) == len(biases["params"]) == 3 and weights["weight_decay"] == 0.1
    assert (biases["lr_scale"], scales["lr_scale"], scales["weight_decay"]) == (2.0, 0.5, 0.0)
    free = sum(parameter.requires_grad for parameter in graph.module.parameters())
    assert sum(len(group["params"]) for group in (weights, biases, scales)) == free


@needs_rtx
def test_tensorrt_builds_every_layer_in_int8(tmp_path: Path) -> None:
    graph = trainable(profile="tensorrt")
    module = stepped(graph, LearnedScales(graph))
    path = build_engine(
        written_back(graph, module), SPEC, tmp_path / "net.plan", "tensorrt-rtx", BuildOptions(target="sm_86")
    )
    assert read_sidecar(path).layers == {"I8": 3}
