"""INT4 weights are for keeping files small: before an engine is built they become what engines run."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from rcompress.engines.torch_graph import TorchGraph, run_node
from rcompress.methods.graph_view import GraphView, remove_unused_initializers


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` without INT4: the same values on a 15-level grid in INT8.

    Weights with a scale for each group become FP32 constants, for no engine multiplies them in integers. Outputs
    are those of ``model``, bit for bit where they are computed alike.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _decode_groups(result)
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.INT4:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int8), tensor.name)
            )
    return result


def has_groups(node: NodeProto) -> bool:
    """Whether a DequantizeLinear has a scale for each block of its tensor."""
    return any(entry.name == "block_size" and entry.i > 0 for entry in node.attribute)


def _decode_groups(model: onnx.ModelProto) -> None:
    view = GraphView(model)
    grouped = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and has_groups(node) and view.is_constant(node.input[0])
    ]
    if not grouped:
        return  # nor need the PyTorch executor know the other operators
    graph = TorchGraph(model)
    values = {name: getattr(graph, slot).detach() for name, slot in graph.slots.items()}
    gone: list[NodeProto] = []
    decoders = {node.outputs[0]: node for node in graph.nodes}
    for node in grouped:
        name, gone = run_node(decoders[node.output[0]], values), [*gone, node]
        reader = view.only_consumer(name)
        weights = values[name]
        if reader is not None and reader.op_type == "Reshape":
            shape = numpy_helper.to_array(view.initializers[reader.input[1]])
            name, weights = reader.output[0], weights.reshape(tuple(int(size) for size in shape))
            gone.append(reader)
        model.graph.initializer.append(numpy_helper.from_array(weights.numpy(), name))
    for node in gone:
        model.graph.node.remove(node)
    remove_unused_initializers(model)
