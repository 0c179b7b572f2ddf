"""One layer of a graph in another graph's version."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rcompress.engines.torch_graph import TorchGraph
from rcompress.methods.lower_precision import lower_precision
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from rcompress.search.layer_swap import match_layers, same_widths, with_layer, with_side_branches
from tests.graphs import images, residual


def quantized(model: onnx.ModelProto, profile="cpu") -> onnx.ModelProto:
    batches = [torch.from_numpy(images(16))]
    return quantize_onnx(model, batches, 16, QuantizeOptions(profile=profile)).model


def logits(model: onnx.ModelProto) -> np.ndarray:
    with torch.inference_mode():
        return TorchGraph(model)(torch.from_numpy(images(8, seed=2))).numpy()


@pytest.mark.parametrize("profile", ["cpu", "tensorrt"])
def test_all_layers_swapped_one_after_another_are_the_other_graph(profile: str) -> None:
    first = residual()
    second = quantized(first, profile)
    mixed = first
    for layer in match_layers(first, second):
        assert layer.swap is not None
        before, mixed = mixed, with_layer(mixed, layer)
        onnx.checker.check_model(mixed)
        assert not np.array_equal(logits(before), logits(mixed)), layer.name
    np.testing.assert_array_equal(logits(mixed), logits(second))


def test_one_layer_takes_its_own_weights_and_quantizers_alone() -> None:
    first = residual()
    layers = {layer.name: layer for layer in match_layers(first, quantized(first))}
    assert list(layers) == ["conv1", "conv2", "add", "fc"]
    mixed = with_layer(first, layers["conv2"])
    assert [node.op_type for node in mixed.graph.node].count("QuantizeLinear") == 1
    kept = {tensor.name for tensor in mixed.graph.initializer}
    assert {"w1", "b1", "w3", "b3"} <= kept and "w2" not in kept


def test_side_branches_leave_the_outputs_as_they_are() -> None:
    first = residual()
    layers = match_layers(first, quantized(first))
    both = with_side_branches(first, layers)
    np.testing.assert_array_equal(logits(both), logits(first))
    seen: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        TorchGraph(both)(torch.from_numpy(images(4)), lambda name, value: seen.update({name: value.numpy()}))
    for layer in layers:
        assert layer.swap is not None
        assert seen[layer.swap.result].shape == seen[layer.output].shape
        assert 0 < np.abs(seen[layer.swap.result] - seen[layer.output]).max() < 0.2


def test_equal_graphs_have_layers_but_nothing_to_swap() -> None:
    layers = match_layers(residual(), residual())
    assert [(layer.name, layer.swap) for layer in layers] == [("conv1", None), ("conv2", None), ("fc", None)]


def test_other_weights_alone_are_a_version_too() -> None:
    first, second = residual(), residual()
    tensor = next(tensor for tensor in second.graph.initializer if tensor.name == "b2")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, "b2"))
    changed = [layer for layer in match_layers(first, second) if layer.swap is not None]
    assert [layer.name for layer in changed] == ["conv2"]
    np.testing.assert_array_equal(logits(with_layer(first, changed[0])), logits(second))


def test_half_precision_weights_stand_in_an_fp32_graph() -> None:
    first = residual()
    changed = [
        layer for layer in match_layers(first, lower_precision(first, "fp16")) if layer.swap is not None
    ]
    assert [layer.name for layer in changed] == ["conv1", "conv2", "fc"]
    for layer in changed:
        difference = np.abs(logits(with_layer(first, layer)) - logits(first)).max()
        assert 0 < difference < 1e-2


def test_layers_are_found_under_other_tensor_names() -> None:
    """Another exporter numbers tensors differently; layers keep the names of their weights."""
    first, second = residual(), quantized(residual())
    for node in (*second.graph.node,):
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == "c1":
                    names[position] = "other"
    layers = {layer.name: layer for layer in match_layers(first, second)}
    assert layers["conv1"].twin_output == "other" and layers["conv1"].swap is not None


def test_widths_are_compared() -> None:
    assert same_widths(residual(), quantized(residual()))
    assert not same_widths(residual(), residual(width=4))
