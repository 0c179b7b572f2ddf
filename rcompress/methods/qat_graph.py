"""A quantized graph as a network that can be trained, and back: what was trained is what is written.

Behind every INT8 or INT4 constant stands a latent float weight that is rounded in each forward pass (Jacob et al.
2018, section 3); scales and biases are trained where they lie. Nothing else of the graph changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rcompress.engines.fake_quantize import FAKE_QUANTIZE, INTEGER_RANGES, along
from rcompress.engines.graph_io import graph_input, shape_of
from rcompress.engines.torch_graph import TorchGraph, tensor_of
from rcompress.methods.graph_view import GraphView, remove_unused_initializers
from rcompress.methods.placement import range_source

HIGHEST: dict[int, int] = {
    TensorProto.INT8: 127,
    TensorProto.INT4: 7,
}  # weights are symmetric: their lowest integer is not used
LATENT = "_latent"


@dataclass(frozen=True)
class Quantizer:
    """A tensor that is rounded in the forward pass.

    Attributes:
        values, scale: names in the graph.
        highest: the largest magnitude, in steps.
        is_weight: whether ``values`` is a latent weight, not an activation.
        attributes: of the node: along which axis, in blocks of which size the scales lie.
    """

    values: str
    scale: str
    highest: int
    is_weight: bool
    attributes: dict[str, int]


@dataclass(frozen=True)
class Layer:
    """A layer whose bias a runtime stores in steps of (activation scale x weight scale)."""

    bias: str
    activation_scale: str
    weight_scale: str


@dataclass(frozen=True)
class TrainableGraph:
    """A quantized graph made trainable.

    Attributes:
        quantized: the graph as it was.
        module: takes what the graph takes; weights, scales and biases alone require gradients.
        quantizers: what is rounded, in the graph's order; tensors that share a scale each have one.
        layers: those with a bias and quantized operands.
        weights, biases: names of what is trained beside the scales. Weights are latent, or those of layers that
            were left in floating point.
        sources: the scale that stands for another one, by the other's name: pooling passes integers on as they are.
    """

    quantized: onnx.ModelProto
    module: TorchGraph
    quantizers: tuple[Quantizer, ...]
    layers: tuple[Layer, ...]
    weights: tuple[str, ...]
    biases: tuple[str, ...]
    sources: dict[str, str]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the smallest batch that the graph takes."""
        return tuple(size or 1 for size in shape_of(graph_input(self.quantized)))


def trainable_graph(quantized: onnx.ModelProto, original: onnx.ModelProto) -> TrainableGraph:
    """Make ``quantized`` trainable.

    Args:
        quantized: with explicit Q/DQ, as `qdq.insert_qdq` writes it.
        original: the same graph in floating point. Its weights become the latent ones where they round to the
            integers written; where they do not (their rounding was learned), the values written do.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    floats = {tensor.name: tensor for tensor in original.graph.initializer}
    sources = _shared_scales(model, original)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.input[1] = sources.get(node.input[1], node.input[1])
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            model.graph.initializer.append(_made_latent(node, constants, floats))
    remove_unused_initializers(model)
    view = GraphView(model)
    quantizers = tuple(_quantizers(view))
    module = TorchGraph(model)
    weights, biases = _operands(view)
    scales = {q.scale for q in quantizers if not q.is_weight or q.values in weights}
    _freeze(module, {*weights, *biases, *scales})
    layers = tuple(_layers(view))
    return TrainableGraph(quantized, module, quantizers, layers, weights, biases, sources)


def parameter(module: nn.Module, name: str) -> Tensor:
    """What stands for the graph's constant ``name`` in a `TorchGraph`, or in a copy of one."""
    assert isinstance(module, TorchGraph)
    value: Tensor = getattr(module, module.slots[name])
    return value


@torch.no_grad()
def written_back(trainable: TrainableGraph, module: nn.Module) -> onnx.ModelProto:
    """The quantized graph with the integers, scales and biases of ``module``, a trained copy of the graph's own.

    Types, zero points and nodes stay as they are, so it keeps its profile; its constants stand for exactly the
    values that ``module`` computes with.
    """
    assert isinstance(module, TorchGraph)
    result = onnx.ModelProto()
    result.CopyFrom(trainable.quantized)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            target = constants[node.input[0]]
            latent, scale = (parameter(module, name).cpu() for name in (target.name + LATENT, node.input[1]))
            _replace(target, _integers(node, latent, scale, target.data_type).numpy())
    for name, tensor in constants.items():
        source = trainable.sources.get(name, name)
        if module.slots.get(source) in module._parameters:
            _replace(tensor, parameter(module, source).cpu().numpy())
    onnx.checker.check_model(result)
    return result


def _shared_scales(model: onnx.ModelProto, original: onnx.ModelProto) -> dict[str, str]:
    """Scales of tensors that pooling or reshaping made of quantized ones, and the scales of those."""
    scales = {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    view = GraphView(original)
    made_of = {name: range_source(view, name, scales) for name in scales}
    return {scales[name]: scales[source] for name, source in made_of.items() if name != source}


def _made_latent(
    node: NodeProto, constants: Mapping[str, TensorProto], floats: Mapping[str, TensorProto]
) -> TensorProto:
    """Turn a constant's DequantizeLinear into rounding of a latent weight, which is returned."""
    integers, scale = (tensor_of(constants[name]) for name in node.input[:2])
    kind = constants[node.input[0]].data_type
    written = integers * along(_attributes(node), scale, integers)
    stem = node.input[0].removesuffix("_quantized")
    given = floats.get(stem) or floats.get(stem.rpartition("_axis")[0])
    if given is None:
        latent = written
    else:
        exact = tensor_of(given).float().reshape(integers.shape)
        latent = torch.where(_integers(node, exact, scale, kind) == integers, exact, written)
    name = node.input[0] + LATENT
    node.op_type = FAKE_QUANTIZE
    del node.input[2:]
    node.input[0] = name
    node.attribute.append(helper.make_attribute("low", -HIGHEST[kind]))
    node.attribute.append(helper.make_attribute("high", HIGHEST[kind]))
    return numpy_helper.from_array(latent.numpy(), name)


def _integers(node: NodeProto, latent: Tensor, scale: Tensor, kind: int) -> Tensor:
    """``latent`` in steps of ``scale``, as the forward pass rounds it."""
    steps = latent.div(along(_attributes(node), scale, latent)).round_()
    return steps.clamp_(-HIGHEST[kind], HIGHEST[kind])


def _attributes(node: NodeProto) -> dict[str, int]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _quantizers(view: GraphView) -> Iterator[Quantizer]:
    for node in view.model.graph.node:
        if node.op_type == FAKE_QUANTIZE:
            given = _attributes(node)
            yield Quantizer(node.input[0], node.input[1], given["high"], True, given)
        elif node.op_type == "QuantizeLinear":
            zero = view.initializers[node.input[2]]
            highest = INTEGER_RANGES[zero.data_type][1] - int(tensor_of(zero).flatten()[0])
            yield Quantizer(node.input[0], node.input[1], highest, False, _attributes(node))


def _operands(view: GraphView) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the weights and of the biases that are trained."""
    weights: dict[str, None] = {}
    biases: dict[str, None] = {}
    for node in view.model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            held = [kept for name in node.input[:2] if (kept := _held(view, name)) is not None]
            weights |= dict.fromkeys(name for name in held if not _selects(view, name))
            biases |= dict.fromkeys(name for name in node.input[2:] if view.is_constant(name))
        elif node.op_type == "Add":
            made_by = [view.producers.get(name) for name in node.input]
            if any(maker is not None and maker.op_type == "MatMul" for maker in made_by):
                biases |= dict.fromkeys(name for name in node.input if view.is_constant(name))
    return tuple(weights), tuple(biases)


def _held(view: GraphView, name: str) -> str | None:
    """The constant that is read as ``name``, rounded or as it is; None for an activation."""
    maker = view.producers.get(name)
    if maker is not None and maker.op_type == "Reshape":  # a convolution's, where scales stand for groups
        maker = view.producers.get(maker.input[0])
    if maker is not None and maker.op_type == FAKE_QUANTIZE:
        return str(maker.input[0])
    return name if view.is_constant(name) else None


def _selects(view: GraphView, name: str) -> bool:
    """Whether a weight is all zeros and ones: a fixed selection of channels (a padding shortcut), not learned."""
    values = numpy_helper.to_array(view.initializers[name])
    return bool(((values == 0) | (values == 1)).all())


def _layers(view: GraphView) -> Iterator[Layer]:
    for node in view.model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or not view.is_constant(node.input[2]):
            continue
        activation, weight = (view.producers.get(name) for name in node.input[:2])
        if activation is None or weight is None or weight.op_type != FAKE_QUANTIZE:
            continue
        if activation.op_type == "DequantizeLinear":
            yield Layer(node.input[2], activation.input[1], weight.input[1])


def _freeze(module: TorchGraph, trained: set[str]) -> None:
    """All but ``trained``: a graph's constants are parameters to the executor, whatever they mean."""
    for name, slot in module.slots.items():
        if slot in module._parameters:
            getattr(module, slot).requires_grad_(name in trained)


def _replace(tensor: TensorProto, values: NDArray[np.generic]) -> None:
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, order="C").astype(kind), tensor.name))
