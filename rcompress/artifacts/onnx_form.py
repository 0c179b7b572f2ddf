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
    """``model``, changed where needed, with constants that are initializers alone and open sizes that are no numbers.

    Numeric Constant nodes become initializers, which are no inputs beside (IR version 3 asks for that); a batch of
    0 or -1 images, as some exporters write it, is left open.
    """
    if _is_plain(model):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _store_constants(result.graph)
    _drop_initializer_inputs(result)
    for axis in _without_size(result):
        axis.dim_param = "batch"
    return result


def _is_plain(model: onnx.ModelProto) -> bool:
    initializers = {tensor.name for tensor in model.graph.initializer}
    constants = any(_constant_value(node) is not None for node in model.graph.node)
    return not (
        constants or initializers & {value.name for value in model.graph.input} or _without_size(model)
    )


def _store_constants(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = _constant_value(node)
        if tensor is None:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
        else:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None for strings, sparse tensors and other nodes."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    (entry,) = node.attribute
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


def _without_size(model: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    """The batch axes of input and output that are given a size which is none."""
    values = (*model.graph.input, *model.graph.output)
    first = [axis for value in values for axis in value.type.tensor_type.shape.dim[:1]]
    return [axis for axis in first if axis.HasField("dim_value") and axis.dim_value <= 0]
