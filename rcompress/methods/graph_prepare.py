"""Making any classifier's ONNX graph fit for quantization: opset, folded BatchNorm, a free batch axis."""

from __future__ import annotations

import onnx
import torch

from rcompress.artifacts.onnx_form import plain_form
from rcompress.engines.graph_io import dtype_of, element_types, graph_input, opset_of, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError

LEAST_OPSET = 13  # per-channel QuantizeLinear and DequantizeLinear begin here
TO_FOLD = {"BatchNormalization", "Identity", "Dropout"}
BATCH_TOLERANCE = 1e-4


def prepare_graph(model: onnx.ModelProto, subject: str = "the graph") -> onnx.ModelProto:
    """``model``, or a changed copy: in opset 13 or later, BatchNorm and constants folded, the batch axis freed.

    Raises:
        RcompressError: it cannot be converted, or is quantized or half-precision already.
    """
    plain = plain_form(model)
    _refuse_converted(plain, subject)
    prepared = _upgraded(plain, subject)
    if _foldable(prepared):
        prepared = _simplified(prepared, subject)
    return with_free_batch(prepared, subject)


def _foldable(model: onnx.ModelProto) -> bool:
    """Whether there is an operator to fold, or any that computes from constants alone."""
    constants = {tensor.name for tensor in model.graph.initializer} | {""}
    return any(node.op_type in TO_FOLD or constants.issuperset(node.input) for node in model.graph.node)


def _refuse_converted(model: onnx.ModelProto, subject: str) -> None:
    operators = {node.op_type for node in model.graph.node}
    if operators & {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"}:
        raise RcompressError(subject, "is quantized already", "give the FP32 file it was made from")
    halves = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    if halves & set(element_types(model).values()):
        raise RcompressError(subject, "has half-precision weights", "give the FP32 file it was made from")


def _upgraded(model: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    if opset_of(model) >= LEAST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, LEAST_OPSET)
    except Exception as error:  # the converter is C++ and raises bare RuntimeErrors and others
        reason = str(error).splitlines()[0]
        raise RcompressError(
            subject,
            f"opset {opset_of(model)} cannot be converted to {LEAST_OPSET} ({reason})",
            "export it again",
        ) from None


def _simplified(model: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    import onnxsim

    try:
        simplified: onnx.ModelProto = onnxsim.simplify(model)[0]
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise RcompressError(subject, f"cannot be simplified ({reason})", "export it again") from None
    return simplified


def with_free_batch(model: onnx.ModelProto, subject: str = "the graph") -> onnx.ModelProto:
    """``model`` with its batch axis free, or unchanged where a fixed one is built into it.

    Freed, it must give for two images at once what it gives for each alone.
    """
    shape = shape_of(graph_input(model, subject))
    if not shape or shape[0] is None or any(size is None for size in shape[1:]):
        return model
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    _free_axis(freed, shape[0])
    return freed if _same_for_two(model, freed, shape[0]) else model


def _free_axis(model: onnx.ModelProto, batch: int) -> None:
    graph = model.graph
    for value in (graph_input(model), graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in targets:
            sizes = onnx.numpy_helper.to_array(tensor).copy()
            if len(sizes) > 1 and sizes[0] == batch:
                sizes[0] = -1 if (sizes[1:] > 0).all() else 0
                tensor.CopyFrom(onnx.numpy_helper.from_array(sizes, tensor.name))


def _same_for_two(fixed: onnx.ModelProto, freed: onnx.ModelProto, batch: int) -> bool:
    value = graph_input(fixed)
    sizes = [size or 1 for size in shape_of(value)]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2 * batch, *sizes[1:], generator=generator)
    if dtype_of(value) == "uint8":
        images = (images * 255).to(torch.uint8)
    with torch.inference_mode():
        whole = TorchGraph(fixed)
        apart = torch.cat([whole(part) for part in torch.tensor_split(images, 2)])
        try:
            together = TorchGraph(freed)(images)
        except RuntimeError:
            return False
    if together.shape != apart.shape:
        return False
    return bool(torch.allclose(together, apart, rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE))
