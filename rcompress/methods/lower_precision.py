"""FP16 and BF16 in the graph: weights and arithmetic in half precision, input and output in FP32."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from rcompress.engines.base import Precision
from rcompress.engines.graph_io import element_types, graph_input, opset_of
from rcompress.errors import RcompressError

HalfPrecision = Literal["fp16", "bf16"]

TYPES: dict[HalfPrecision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
BF16_OPSET = 22  # convolutions and poolings take BF16 from here on
KEPT_INPUTS = {"Resize": (1, 2)}  # regions and scales are FP32 by definition
FP16_LARGEST = 65504.0


def lower_precision(
    model: onnx.ModelProto, precision: HalfPrecision, subject: str = "the graph"
) -> onnx.ModelProto:
    """A copy of ``model`` that computes in ``precision`` between two Casts.

    Raises:
        RcompressError: it is quantized, a weight is too large for FP16, or the result does not type-check.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise RcompressError(subject, "is quantized", "give the FP32 file it was made from")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if precision == "bf16" and opset_of(result) < BF16_OPSET:
        result = onnx.version_converter.convert_version(result, BF16_OPSET)
    _convert_constants(result, precision, subject)
    _retarget_casts(result, TYPES[precision])
    _cast_ends(result, TYPES[precision])
    del result.graph.value_info[:]
    try:
        onnx.checker.check_model(result, full_check=True)
    except Exception as error:  # the checker and shape inference raise different C++ exceptions
        reason = str(error).splitlines()[0]
        raise RcompressError(
            subject, f"cannot compute in {precision} ({reason})", "build it in FP32"
        ) from None
    return result


def precision_of(model: onnx.ModelProto) -> Precision:
    """What a graph is made for, from its nodes and weights."""
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return "int8"
    kinds = set(element_types(model).values())
    if TensorProto.FLOAT16 in kinds:
        return "fp16"
    return "bf16" if TensorProto.BFLOAT16 in kinds else "fp32"


def _convert_constants(model: onnx.ModelProto, precision: HalfPrecision, subject: str) -> None:
    kept = {
        node.input[position]
        for node in model.graph.node
        for position in KEPT_INPUTS.get(node.op_type, ())
        if position < len(node.input)
    }
    constants = [tensor for tensor in model.graph.initializer if tensor.name not in kept]
    for node in model.graph.node:
        constants += [entry.t for entry in node.attribute if entry.name == "value" and entry.HasField("t")]
    for tensor in constants:
        if tensor.data_type == TensorProto.FLOAT:
            _convert(tensor, precision, subject)


def _convert(tensor: TensorProto, precision: HalfPrecision, subject: str) -> None:
    values = numpy_helper.to_array(tensor)
    if precision == "fp16":
        if values.size and float(np.abs(values).max()) > FP16_LARGEST:
            raise RcompressError(subject, f"{tensor.name} is too large for FP16", "use --bf16")
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
        return
    words = numpy_helper.from_array(
        values.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)), tensor.name
    )
    tensor.CopyFrom(words)


def _retarget_casts(model: onnx.ModelProto, half: int) -> None:
    """What the graph itself casts to FP32 (bytes of an image, say) goes on in half precision."""
    for node in model.graph.node:
        if node.op_type == "Cast":
            for entry in node.attribute:
                if entry.name == "to" and entry.i == TensorProto.FLOAT:
                    entry.i = half


def _cast_ends(model: onnx.ModelProto, half: int) -> None:
    graph = model.graph
    value, output = graph_input(model), graph.output[0].name
    opening: list[NodeProto] = []
    if value.type.tensor_type.elem_type == TensorProto.FLOAT:
        _rename(graph, value.name, f"{value.name}_half", inputs=True)
        opening.append(helper.make_node("Cast", [value.name], [f"{value.name}_half"], "to_half", to=half))
    _rename(graph, output, f"{output}_half", inputs=True, outputs=True)
    closing = helper.make_node("Cast", [f"{output}_half"], [output], "to_float", to=TensorProto.FLOAT)
    nodes = [*opening, *graph.node, closing]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _rename(graph: onnx.GraphProto, old: str, new: str, inputs: bool = False, outputs: bool = False) -> None:
    for node in graph.node:
        for names in ([node.input] if inputs else []) + ([node.output] if outputs else []):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
