"""Looking around in an ONNX graph: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto


class GraphView:
    """An index of a graph as it is now; make a new one after changing the graph.

    Attributes:
        model: the graph's model.
        producers: the node that makes each tensor.
        consumers: the nodes that read each tensor, in the graph's order.
        initializers: constant tensors by name.
        outputs: names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.producers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self.outputs = {value.name for value in graph.output}

    def is_constant(self, name: str) -> bool:
        return name in self.initializers

    def only_consumer(self, name: str) -> NodeProto | None:
        """The one node that reads ``name``; None where several do, none does, or it is an output."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def attribute(node: NodeProto, name: str, default: int | float) -> int | float:
    """A numeric attribute of ``node``."""
    for entry in node.attribute:
        if entry.name == name:
            value: int | float = onnx.helper.get_attribute_value(entry)
            return value
    return default


def layer_name(node: NodeProto) -> str:
    """What people call a node: its name (our exports use the module's), or its output's where it has none."""
    return str(node.name or node.output[0])


def _read_in(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of what a graph's nodes read, and those of the graphs within them, and of its outputs."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                yield from _read_in(inner)


def remove_unused_initializers(model: onnx.ModelProto) -> None:
    """Drop constants that nothing reads any more."""
    used = set(_read_in(model.graph))
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
