"""One layer of a graph in the version that another graph has of it: its weights and its quantizers, no others.

Two graphs of one network are matched node by node: by the name of the node, which holds the weights' name, or by
the tensor it makes. What stands between the matched tensors in the second graph and a node's twin there
(QuantizeLinear, DequantizeLinear, constants) is the twin's version of the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from rcompress.engines.graph_io import graph_input, opset_of
from rcompress.methods.graph_view import GraphView, remove_unused_initializers

MATRIX_OPERATORS = ("Conv", "Gemm", "MatMul")
HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
PREFIX = "swapped/"


@dataclass(frozen=True)
class Layer:
    """A node that both graphs have.

    Attributes:
        name: the node's; of an add or a pooling the block's, as in ``layer2.0.add``.
        operator: ``Conv``, ``Add``, ...
        output, twin_output: the tensor it makes, in the first and in the second graph.
        swap: the second graph's version; None where it is the same, or reaches over other layers.
    """

    name: str
    operator: str
    output: str
    twin_output: str
    swap: Swap | None

    @property
    def stage(self) -> str:
        """The part of the network it belongs to: ``layer2`` of ``layer2.0.conv1``."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Swap:
    """Nodes and constants that make ``result`` from tensors of the first graph, under names of their own."""

    nodes: tuple[NodeProto, ...]
    constants: tuple[TensorProto, ...]
    result: str


def match_layers(first: onnx.ModelProto, second: onnx.ModelProto) -> list[Layer]:
    """The matrix products, and what else ``second`` has in another version, in the order of ``first``."""
    views = GraphView(first), GraphView(second)
    twins = _twins(first, second)
    known = {graph_input(second).name: graph_input(first).name}
    known |= {
        twins[index].output[0]: node.output[0]
        for index, node in enumerate(first.graph.node)
        if index in twins
    }
    layers = []
    for index, node in enumerate(first.graph.node):
        if index in twins:
            swap = _Tracer(*views, known).swap(node, twins[index])
            if swap is not None or node.op_type in MATRIX_OPERATORS:
                layers.append(
                    Layer(_name(views[0], node), node.op_type, node.output[0], twins[index].output[0], swap)
                )
    return layers


def same_widths(first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
    """Whether the weights of matched matrix products have equal shapes."""
    views, twins = (GraphView(first), GraphView(second)), _twins(first, second)
    pairs = [
        (_weight_shape(views[0], node), _weight_shape(views[1], twins[index]))
        for index, node in enumerate(first.graph.node)
        if index in twins and node.op_type in MATRIX_OPERATORS
    ]
    return all(mine == theirs for mine, theirs in pairs)


def with_layer(model: onnx.ModelProto, layer: Layer) -> onnx.ModelProto:
    """A copy of ``model`` in which ``layer`` alone is swapped."""
    assert layer.swap is not None, "layers without another version are not swapped"
    swap = layer.swap
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += [node] if node.output[0] != layer.output else _renamed(swap.nodes, swap.result, layer.output)
    return _rebuilt(model, nodes, swap.constants)


def with_side_branches(model: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
    """A copy of ``model`` that also computes every swap's result, on inputs from ``model``; nothing reads them."""
    swaps = {layer.output: layer.swap for layer in layers if layer.swap is not None}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        if node.output[0] in swaps:
            nodes += swaps[node.output[0]].nodes
    return _rebuilt(model, nodes, [constant for swap in swaps.values() for constant in swap.constants])


def in_equal_opsets(
    first: onnx.ModelProto, second: onnx.ModelProto
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Both graphs in the later of their opsets, so that nodes of one can stand in the other."""
    latest = max(opset_of(first), opset_of(second))
    raised = [
        model if opset_of(model) == latest else onnx.version_converter.convert_version(model, latest)
        for model in (first, second)
    ]
    return raised[0], raised[1]


class _Tracer:
    """Walks back from a twin's inputs to tensors that the first graph has too."""

    def __init__(self, first: GraphView, second: GraphView, known: Mapping[str, str]) -> None:
        self._first, self._second, self._known = first, second, known
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def swap(self, node: NodeProto, twin: NodeProto) -> Swap | None:
        """The twin's version of ``node``, None where it is the same or not of this layer alone."""
        stem = f"{PREFIX}{node.output[0]}/"
        names = [self._source(name, stem) for name in twin.input]
        if any(made.op_type in MATRIX_OPERATORS for made in self._nodes) or self._is_same(node, names):
            return None
        last = NodeProto()
        last.CopyFrom(twin)
        _set(last.input, names)
        _set(last.output, [f"{stem}result", *(f"{stem}{name}" for name in twin.output[1:])])
        last.name = f"{stem}{node.name}"
        return Swap((*self._nodes, last), tuple(self._constants.values()), last.output[0])

    def _source(self, name: str, stem: str) -> str:
        """The name under which ``name`` of the second graph is found beside the first one."""
        if not name:
            return name
        if name in self._known:
            return self._known[name]
        if self._second.is_constant(name):
            self._constants[name] = _in_single(self._second.initializers[name], f"{stem}{name}")
            return f"{stem}{name}"
        producer = self._second.producers[name]
        if producer.op_type == "Cast":
            return self._source(producer.input[0], stem)
        if all(f"{stem}{made}" not in each.output for each in self._nodes for made in producer.output):
            copied = NodeProto()
            copied.CopyFrom(producer)
            _set(copied.input, [self._source(given, stem) for given in producer.input])
            _set(copied.output, [f"{stem}{made}" for made in producer.output])
            copied.name = f"{stem}{producer.name}"
            self._nodes.append(copied)
        return f"{stem}{name}"

    def _is_same(self, node: NodeProto, names: Sequence[str]) -> bool:
        if self._nodes or len(names) != len(node.input):
            return False
        copied = {constant.name: constant for constant in self._constants.values()}
        return all(
            mine == theirs
            or (
                theirs in copied
                and self._first.is_constant(mine)
                and _equal(self._first.initializers[mine], copied[theirs])
            )
            for mine, theirs in zip(node.input, names, strict=True)
        )


def _twins(first: onnx.ModelProto, second: onnx.ModelProto) -> dict[int, NodeProto]:
    """For the nodes of ``first``, by position, their counterparts in ``second``, as far as there are some."""
    by_name = {(node.op_type, node.name): node for node in second.graph.node if node.name}
    by_output = {(node.op_type, node.output[0]): node for node in second.graph.node}
    found = {}
    for index, node in enumerate(first.graph.node):
        twin = by_output.get((node.op_type, node.output[0]))
        if node.op_type in MATRIX_OPERATORS:
            twin = by_name.get((node.op_type, node.name)) or twin
        if twin is not None:
            found[index] = twin
    return found


def _name(view: GraphView, node: NodeProto) -> str:
    """Exporters number what has no weights: such a node is called after the block whose layers it follows."""
    before: NodeProto | None = node
    while before is not None and before.op_type not in MATRIX_OPERATORS:
        before = view.producers.get(before.input[0]) if before.input else None
    block = before.name.rpartition(".")[0] if before is not None and before is not node else ""
    return f"{block}.{node.op_type.lower()}" if block else node.name or node.output[0]


def _weight_shape(view: GraphView, node: NodeProto) -> tuple[int, ...]:
    """Of a layer's constant operand, through a DequantizeLinear where one stands before it."""
    name = node.input[1]
    while name not in view.initializers and name in view.producers:
        name = view.producers[name].input[0]
    return tuple(view.initializers[name].dims) if name in view.initializers else ()


def _in_single(tensor: TensorProto, name: str) -> TensorProto:
    """A copy under another name; half-precision values widened, which keeps them."""
    copied = TensorProto()
    copied.CopyFrom(tensor)
    if tensor.data_type in HALVES:
        copied.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32)))
    copied.name = name
    return copied


def _equal(one: TensorProto, other: TensorProto) -> bool:
    return one.data_type == other.data_type and np.array_equal(
        numpy_helper.to_array(one), numpy_helper.to_array(other)
    )


def _renamed(nodes: Sequence[NodeProto], old: str, new: str) -> list[NodeProto]:
    copies = []
    for node in nodes:
        copied = NodeProto()
        copied.CopyFrom(node)
        _set(copied.output, [new if name == old else name for name in node.output])
        copies.append(copied)
    return copies


def _rebuilt(
    model: onnx.ModelProto, nodes: Sequence[NodeProto], constants: Sequence[TensorProto]
) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    result.graph.initializer.extend(constants)
    remove_unused_initializers(result)
    return result


def _set(field: object, values: Sequence[str]) -> None:
    del field[:]  # type: ignore[attr-defined]
    field.extend(values)  # type: ignore[attr-defined]
