"""Running a graph node by node over many batches, so that a layer can be changed before what follows sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx
import torch
from torch import Tensor

from rcompress.engines.torch_graph import TorchGraph, run_node
from rcompress.engines.torch_node import Node


class Walk:
    """A graph that advances over all batches at once; a tensor is held from its making to its last use.

    Args:
        model: an ONNX graph with one input and one output.
        batches: network inputs.
        keep: tensors to hold until `take` is called for them.
        device: where it runs and holds tensors.
    """

    def __init__(
        self, model: onnx.ModelProto, batches: Iterable[Tensor], keep: Iterable[str] = (), device: str = "cpu"
    ) -> None:
        graph = TorchGraph(model).to(device).requires_grad_(False)
        self._nodes = graph.nodes
        self._unread = Counter(name for node in self._nodes for name in dict.fromkeys(node.inputs))
        self._kept = {graph.output_name, *keep}
        self._states: list[dict[str, Any]] = [graph.starting_values(images.to(device)) for images in batches]
        self._position = 0

    @torch.no_grad()
    def until(self, name: str) -> list[Tensor]:
        """Go on until ``name`` is there, and return its value for each batch."""
        while name not in self._states[0]:
            node = self._nodes[self._position]
            for values in self._states:
                run_node(node, values)
            self._position += 1
            for read in dict.fromkeys(node.inputs):
                self._unread[read] -= 1
                self._drop(read)
        return [values[name] for values in self._states]

    def take(self, name: str) -> list[Tensor]:
        """As `until`, and hold it no longer than the graph needs it."""
        found = self.until(name)
        self._kept.discard(name)
        self._drop(name)
        return found

    def _drop(self, name: str) -> None:
        if self._unread[name] == 0 and name not in self._kept:
            for values in self._states:
                values.pop(name, None)

    def node(self, output: str) -> Node:
        """The node that makes ``output``."""
        return next(node for node in self._nodes if node.outputs[0] == output)

    def shift(self, name: str, amount: Tensor) -> None:
        """Add ``amount`` to ``name`` in every batch; it must not have been used yet."""
        for values in self._states:
            values[name] = values[name] + amount

    def replace(self, name: str, value: Tensor) -> None:
        """Give ``name`` another value in every batch; it must not have been used yet."""
        for values in self._states:
            values[name] = value
