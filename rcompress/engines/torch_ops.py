"""ONNX operators in PyTorch: one function each, differentiable wherever the operator is.

An operator takes the node and its input tensors (None where an optional one is left out) and returns its
output. Semantics: the ONNX operator specification, default domain, from opset 7 on. Integer tensors that
describe shapes live on the CPU, so that reading them never waits for a GPU.
"""

from __future__ import annotations

import math
from functools import reduce

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from rcompress.engines.fake_quantize import FAKE_QUANTIZE, INTEGER_RANGES, along, fake_quantize
from rcompress.engines.torch_node import Inputs, Node, Operator, integers
from rcompress.engines.torch_spatial import average_pool, conv, max_pool, pad, resize

TORCH_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def _gemm(node: Node, inputs: Inputs) -> Tensor:
    a = inputs[0].t() if node.attributes.get("transA", 0) else inputs[0]
    b = inputs[1].t() if node.attributes.get("transB", 0) else inputs[1]
    product: Tensor = a @ b
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    product = product if alpha == 1.0 else product * alpha
    if len(inputs) < 3 or inputs[2] is None:
        return product
    bias: Tensor = inputs[2] if beta == 1.0 else inputs[2] * beta
    return product + bias


def _reduce_mean(node: Node, inputs: Inputs) -> Tensor:
    axes = integers(node, inputs, 1, "axes")
    if axes is None and node.attributes.get("noop_with_empty_axes", 0):
        return inputs[0]  # type: ignore[no-any-return]
    keep = bool(node.attributes.get("keepdims", 1))
    result: Tensor = inputs[0].mean(dim=axes or list(range(inputs[0].dim())), keepdim=keep)
    return result


def _reshape(node: Node, inputs: Inputs) -> Tensor:
    target = [int(size) for size in inputs[1].tolist()]
    if not node.attributes.get("allowzero", 0):
        target = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(target)]
    return inputs[0].reshape(target)  # type: ignore[no-any-return]


def _flatten(node: Node, inputs: Inputs) -> Tensor:
    axis = node.attributes.get("axis", 1)  # its range ends with the rank, so that -1 is the last axis
    axis = axis + inputs[0].dim() if axis < 0 else axis
    return inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)  # type: ignore[no-any-return]


def _squeeze(node: Node, inputs: Inputs) -> Tensor:
    axes = integers(node, inputs, 1, "axes")
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(axes)  # type: ignore[no-any-return]


def _unsqueeze(node: Node, inputs: Inputs) -> Tensor:
    axes = integers(node, inputs, 1, "axes") or []
    result: Tensor = inputs[0]
    rank = result.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        result = result.unsqueeze(axis)
    return result


def _gather(node: Node, inputs: Inputs) -> Tensor:
    data, indices = inputs[0], inputs[1].to(inputs[0].device)
    axis = node.attributes.get("axis", 0) % data.dim()
    size = data.shape[axis]
    wrapped = torch.where(indices < 0, indices + size, indices)
    picked: Tensor = data.index_select(axis, wrapped.flatten())
    return picked.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


def _slice(node: Node, inputs: Inputs) -> Tensor:
    starts = integers(node, inputs, 1, "starts") or []
    ends = integers(node, inputs, 2, "ends") or []
    axes = integers(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = integers(node, inputs, 4, "steps") or [1] * len(starts)
    result: Tensor = inputs[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = result.shape[axis]
        stop = None if step < 0 and end < -size else end
        positions = list(range(size))[start:stop:step]
        result = result.index_select(axis, torch.tensor(positions, dtype=torch.int64, device=result.device))
    return result


def _clip(node: Node, inputs: Inputs) -> Tensor:
    bounds = [inputs[i] if len(inputs) > i else None for i in (1, 2)]
    low = node.attributes.get("min") if bounds[0] is None else bounds[0]
    high = node.attributes.get("max") if bounds[1] is None else bounds[1]
    data: Tensor = inputs[0]
    return data if low is None and high is None else data.clamp(low, high)


def _softmax(node: Node, inputs: Inputs) -> Tensor:
    softmax = F.log_softmax if node.op == "LogSoftmax" else F.softmax
    if node.opset >= 13:
        return softmax(inputs[0], dim=node.attributes.get("axis", -1))
    rows = _flatten(node, inputs)  # before opset 13 the axes from ``axis`` on are one
    return softmax(rows, dim=1).reshape(inputs[0].shape)


def _batch_norm(node: Node, inputs: Inputs) -> Tensor:
    data, scale, bias, mean, variance = inputs[:5]
    return F.batch_norm(data, mean, variance, scale, bias, eps=node.attributes.get("epsilon", 1e-5))


def _layer_norm(node: Node, inputs: Inputs) -> Tensor:
    axis = node.attributes.get("axis", -1) % inputs[0].dim()
    bias = inputs[2] if len(inputs) > 2 else None
    shape = inputs[0].shape[axis:]
    return F.layer_norm(inputs[0], shape, inputs[1], bias, node.attributes.get("epsilon", 1e-5))


def _cast(node: Node, inputs: Inputs) -> Tensor:
    return inputs[0].to(TORCH_TYPES[node.attributes["to"]])  # type: ignore[no-any-return]


def _shape(node: Node, inputs: Inputs) -> Tensor:
    sizes = list(inputs[0].shape)[node.attributes.get("start", 0) : node.attributes.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _constant_of_shape(node: Node, inputs: Inputs) -> Tensor:
    value = node.attributes.get("value", torch.zeros(1))
    return torch.full([int(size) for size in inputs[0].tolist()], value.item(), dtype=value.dtype)


def _div(inputs: Inputs) -> Tensor:
    return torch.div(*inputs, rounding_mode=None if inputs[0].is_floating_point() else "trunc")


def _quantize(node: Node, inputs: Inputs) -> Tensor:
    """Whole numbers in a float tensor: round half to even, saturate. No gradient passes; `FakeQuantize` has one."""
    data: Tensor = inputs[0]
    declared = node.attributes.get("output_dtype") or onnx.TensorProto.UINT8
    low, high = INTEGER_RANGES[node.element_types.get(2, declared)]
    rounded = (data / along(node.attributes, inputs[1], data)).round()
    if len(inputs) > 2 and inputs[2] is not None:
        rounded = rounded + along(node.attributes, inputs[2].to(data.dtype), data)
    return rounded.clamp(low, high)


def _dequantize(node: Node, inputs: Inputs) -> Tensor:
    data, scale = inputs[0].to(inputs[1].dtype), inputs[1]
    if len(inputs) > 2 and inputs[2] is not None:
        data = data - along(node.attributes, inputs[2].to(scale.dtype), data)
    result: Tensor = data * along(node.attributes, scale, data)
    return result


OPERATORS: dict[str, Operator] = {
    "Abs": lambda _, x: x[0].abs(),
    "Add": lambda _, x: x[0] + x[1],
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, x: torch.cat(list(x), dim=node.attributes["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda _, x: _div(x),
    "Dropout": lambda _, x: x[0],
    "Elu": lambda node, x: F.elu(x[0], node.attributes.get("alpha", 1.0)),
    "Erf": lambda _, x: torch.erf(x[0]),
    "Exp": lambda _, x: torch.exp(x[0]),
    "Expand": lambda _, x: x[0] * torch.ones(x[1].tolist(), dtype=x[0].dtype, device=x[0].device),
    FAKE_QUANTIZE: fake_quantize,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda node, x: F.gelu(x[0], approximate=node.attributes.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x[0].mean(dim=list(range(2, x[0].dim())), keepdim=True),
    "GlobalMaxPool": lambda _, x: x[0].amax(dim=list(range(2, x[0].dim())), keepdim=True),
    "HardSigmoid": lambda node, x: (
        x[0] * node.attributes.get("alpha", 0.2) + node.attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": lambda _, x: F.hardswish(x[0]),
    "Identity": lambda _, x: x[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, x: F.leaky_relu(x[0], node.attributes.get("alpha", 0.01)),
    "LogSoftmax": _softmax,
    "MatMul": lambda _, x: x[0] @ x[1],
    "Max": lambda _, x: reduce(torch.maximum, x),
    "MaxPool": max_pool,
    "Min": lambda _, x: reduce(torch.minimum, x),
    "Mul": lambda _, x: x[0] * x[1],
    "Neg": lambda _, x: -x[0],
    "PRelu": lambda _, x: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "Pad": pad,
    "Pow": lambda _, x: x[0] ** x[1],
    "QuantizeLinear": _quantize,
    "Range": lambda _, x: torch.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype),
    "ReduceMean": _reduce_mean,
    "Relu": lambda _, x: F.relu(x[0]),
    "Reshape": _reshape,
    "Resize": resize,
    "Shape": _shape,
    "Sigmoid": lambda _, x: torch.sigmoid(x[0]),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": lambda _, x: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda _, x: x[0] - x[1],
    "Tanh": lambda _, x: torch.tanh(x[0]),
    "Transpose": lambda node, x: x[0].permute(node.attributes.get("perm", list(reversed(range(x[0].dim()))))),
    "Unsqueeze": _unsqueeze,
    "Where": lambda _, x: torch.where(x[0], x[1], x[2]),
}
