"""How wide the numbers are that a network multiplies."""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto

from rcompress.measure.graph import attribute_ints, constant_tensors, quantized_type, type_bits

REARRANGES = frozenset(
    ("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather")
)
"""Operators behind which values are as wide as before."""


class OperandBits:
    """Bits of the operands of a graph's nodes: of what was quantized as it was, of the rest as it is computed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._constants = constant_tensors(model)
        self._types = {name: tensor.data_type for name, tensor in self._constants.items()}
        self._makers = {name: node for node in model.graph.node for name in node.output}

    def widest(self, node: NodeProto) -> int:
        """Of the two operands of a convolution or matrix product, the wider: a multiplier must hold both."""
        sources = [self._source(name) for name in node.input[:2]]
        computed = max(map(self._computed, sources)) or 32
        return max(self._quantized(source) or computed for source in sources)

    def _source(self, name: str) -> NodeProto | TensorProto | None:
        """What makes a value, behind all that only rearranges it; None: an input of the graph."""
        while (node := self._makers.get(name)) is not None and node.op_type in REARRANGES:
            name = node.input[0]
        return node if node is not None else self._constants.get(name)

    def _quantized(self, source: NodeProto | TensorProto | None) -> int | None:
        if not isinstance(source, NodeProto) or source.op_type != "DequantizeLinear":
            return None
        before = self._source(source.input[0])
        if isinstance(before, TensorProto):
            return type_bits(before.data_type)
        if before is not None and before.op_type == "QuantizeLinear":
            made = quantized_type(before, self._types)
            return None if made is None else type_bits(made)
        return None

    def _computed(self, source: NodeProto | TensorProto | None) -> int:
        """Bits of the type that the operator works in, as far as this operand tells (0: it does not)."""
        if isinstance(source, TensorProto):
            return type_bits(source.data_type)
        if source is None:
            return 0
        if source.op_type == "DequantizeLinear" and source.input[1] in self._constants:
            return type_bits(self._constants[source.input[1]].data_type)
        if source.op_type == "Cast":
            return type_bits(attribute_ints(source, "to", [TensorProto.FLOAT])[0])
        return 0
