"""One form of the many in which an ONNX graph may say the same."""

from __future__ import annotations

import numpy as np
import onnx

INITIALIZERS_ALONE = 4  # the IR version from which on they need not be inputs too
CONSTANT_TYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def plain_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` whose constants are initializers alone and whose open sizes are no numbers.

    Numeric Constant nodes become initializers, which are no inputs beside (IR version 3 asks for that); a size
    of 0 or -1 in an input or output, as some exporters write it, is left open.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _store_constants(result.graph)
    _drop_initializer_inputs(result)
    for value in (*result.graph.input, *result.graph.output):
        _open_sizes(value)
    return result


def _store_constants(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = _constant_value(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
        else:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None for strings and sparse tensors."""
    entry = node.attribute[0]
    if entry.name != "value" and entry.name not in CONSTANT_TYPES:
        return None
    held = onnx.helper.get_attribute_value(entry)
    tensor: onnx.TensorProto = (
        held
        if entry.name == "value"
        else onnx.numpy_helper.from_array(np.array(held, dtype=CONSTANT_TYPES[entry.name]))
    )
    return tensor


def _drop_initializer_inputs(model: onnx.ModelProto) -> None:
    known = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in known]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, INITIALIZERS_ALONE)


def _open_sizes(value: onnx.ValueInfoProto) -> None:
    for position, axis in enumerate(value.type.tensor_type.shape.dim):
        if axis.HasField("dim_value") and axis.dim_value <= 0:
            axis.dim_param = "batch" if position == 0 else f"{value.name}_{position}"
