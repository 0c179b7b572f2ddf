"""A decoded ONNX node, as the PyTorch operators take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Inputs = Sequence[Any]  # of Tensor, or None where an optional input is left out


@dataclass(frozen=True)
class Node:
    """One node of a graph, decoded.

    ``element_types`` holds the ONNX element type of each initializer among the inputs, by position: the type
    of its zero point says to which range a QuantizeLinear rounds.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    element_types: dict[int, int] = field(default_factory=dict)


Operator = Callable[[Node, Inputs], Any]


def integers(node: Node, inputs: Inputs, position: int, attribute: str) -> list[int] | None:
    """Integers that older opsets give as an attribute and newer ones as an input."""
    if len(inputs) > position and inputs[position] is not None:
        return [int(value) for value in inputs[position].flatten().tolist()]
    value = node.attributes.get(attribute)
    return None if value is None else [int(item) for item in value]
