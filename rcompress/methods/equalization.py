"""Cross-layer equalization: channels of like range on both sides of a ReLU (Nagel et al. 2019, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from rcompress.methods.graph_view import GraphView, attribute

HOMOGENEOUS = {"Relu", "LeakyRelu", "MaxPool", "AveragePool"}
"""Operators with ``f(s x) = s f(x)`` for each channel and s > 0; a Clip (ReLU6) is none."""
SWEEPS, TOLERANCE = 30, 1e-3
DEAD = 1e-3
"""A channel whose weights are below this share of its bias is left alone: all but constant, it would be blown up
with the range of the whole tensor."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two convolutions of which the second alone reads what the first makes, through `HOMOGENEOUS` operators."""

    first: NodeProto
    second: NodeProto


def equalized(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy of ``model`` that computes the same, and how many pairs of layers were equalized in it.

    Channel i between two convolutions is divided by ``s = sqrt(r1 r2) / r2`` (equation 11), r1 and r2 being the
    largest magnitudes of the weights that make and read it, until nothing changes. A tensor that a residual
    add reads as well is left alone.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    view = GraphView(result)
    pairs = _pairs(view)
    weights = {name: numpy_helper.to_array(view.initializers[name]).copy() for name in _operands(pairs)}
    for _ in range(SWEEPS):
        largest = max((_equalize(pair, weights) for pair in pairs), default=0.0)
        if largest < TOLERANCE:
            break
    for name, values in weights.items():
        view.initializers[name].CopyFrom(numpy_helper.from_array(values, name))
    return result, len(pairs)


def _pairs(view: GraphView) -> list[Pair]:
    """In the graph's order; every constant of a pair is read by one layer only."""
    found = []
    for node in view.model.graph.node:
        reader = _reader(view, node) if _is_layer(view, node) else None
        if reader is not None and _is_layer(view, reader) and _fits(view, node, reader):
            found.append(Pair(node, reader))
    return found


def _reader(view: GraphView, node: NodeProto) -> NodeProto | None:
    """The node that alone reads ``node``'s output, behind operators that keep factors."""
    reader = view.only_consumer(node.output[0])
    while reader is not None and reader.op_type in HOMOGENEOUS and len(reader.input) == 1:
        reader = view.only_consumer(reader.output[0])
    return reader


def _is_layer(view: GraphView, node: NodeProto) -> bool:
    constants = list(node.input[1:])
    return node.op_type == "Conv" and all(
        view.is_constant(name) and view.only_consumer(name) is not None for name in constants
    )


def _fits(view: GraphView, first: NodeProto, second: NodeProto) -> bool:
    """Whether the second's weights have an axis of the first's channels: ordinary or depthwise convolutions."""
    channels = view.initializers[first.input[1]].dims[0]
    sizes = view.initializers[second.input[1]].dims
    groups = int(attribute(second, "group", 1))
    return bool(sizes[1] == channels if groups == 1 else (sizes[1] == 1 and sizes[0] == groups == channels))


def _operands(pairs: list[Pair]) -> list[str]:
    return list(
        dict.fromkeys(name for pair in pairs for node in (pair.first, pair.second) for name in node.input[1:])
    )


def _equalize(pair: Pair, weights: dict[str, FloatArray]) -> float:
    """Equalize once; returns how far the largest factor was from 1."""
    first, second = weights[pair.first.input[1]], weights[pair.second.input[1]]
    axis = 1 if int(attribute(pair.second, "group", 1)) == 1 else 0
    made, read = _largest(first, 0), _largest(second, axis)
    bias = np.abs(weights[pair.first.input[2]]) if len(pair.first.input) > 2 else np.zeros_like(made)
    alive = (made > DEAD * bias) & (read > 0)  # a dead channel has no scale to speak of
    factor = np.where(alive, np.sqrt(made / np.where(alive, read, 1)), 1).astype(np.float32)
    weights[pair.first.input[1]] = first / _shaped(factor, first.ndim, 0)
    weights[pair.second.input[1]] = second * _shaped(factor, second.ndim, axis)
    if len(pair.first.input) > 2:
        weights[pair.first.input[2]] = weights[pair.first.input[2]] / factor
    return float(np.abs(factor - 1).max())


def _largest(values: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis)))


def _shaped(factor: FloatArray, rank: int, axis: int) -> FloatArray:
    return factor.reshape([-1 if i == axis else 1 for i in range(rank)])
