"""What a graph's input and output look like."""

from __future__ import annotations

import onnx

from rcompress.errors import RcompressError


def graph_input(model: onnx.ModelProto, subject: str = "the graph") -> onnx.ValueInfoProto:
    """The one input that is not an initializer.

    Raises:
        RcompressError: there is none or more than one.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise RcompressError(
            subject,
            f"has {len(inputs)} inputs and {len(model.graph.output)} outputs",
            "give a classifier: one of each",
        )
    value: onnx.ValueInfoProto = inputs[0]
    return value


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Sizes of a graph's input or output; None for a free axis."""
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
    )


def dtype_of(value: onnx.ValueInfoProto) -> str:
    """numpy's name of an input's element type: ``float32``, ``uint8``."""
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of each initializer, by name."""
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}
