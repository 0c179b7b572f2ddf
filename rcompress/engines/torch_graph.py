"""An ONNX graph as a differentiable PyTorch module: what calibration, QAT and the ``torch`` backend run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rcompress.artifacts.onnx_form import plain_form
from rcompress.engines.fake_quantize import fused
from rcompress.engines.graph_io import element_types, graph_input, opset_of
from rcompress.engines.torch_node import Node
from rcompress.engines.torch_ops import OPERATORS
from rcompress.errors import RcompressError

Observer = Callable[[str, Tensor], None]


class TorchGraph(nn.Module):
    """Executes an ONNX graph with one input and one output, node by node in its order.

    Floating-point initializers are parameters and other numeric ones buffers, so that the graph can be moved
    and trained; 64-bit integers and booleans stay on the CPU, where shapes are computed. A tensor is
    forgotten after its last use.

    Attributes:
        input_name, output_name: of the graph.
        slots: the attribute under which each initializer lies, by its name in the graph.
        nodes: in the order of execution.

    Raises:
        RcompressError: the graph has several inputs or outputs, or an operator that is not in the table.
    """

    def __init__(self, model: onnx.ModelProto, subject: str = "the graph") -> None:
        super().__init__()
        model = plain_form(model)
        graph = model.graph
        self.input_name, self.output_name = graph_input(model, subject).name, graph.output[0].name
        self.slots: dict[str, str] = {}
        self._shapes: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            self._add(tensor)
        types, opset = element_types(model), opset_of(model)
        decoded = [_decoded(node, types, opset, subject) for node in graph.node]
        self.nodes = fused(decoded, dict(self._integers()), self.output_name)
        self._forget = _last_uses(self.nodes, keep={self.output_name})

    def forward(self, images: Tensor, observe: Observer | None = None) -> Tensor:
        """Logits of ``images`` (in the graph's own input layout and dtype).

        ``observe`` is called with the name and value of the input and of every node's output, as they appear.
        """
        values = self.starting_values(images)
        if observe is not None:
            observe(self.input_name, images)
        for node, forget in zip(self.nodes, self._forget, strict=True):
            name = run_node(node, values)
            if observe is not None:
                observe(name, values[name])
            for unused in forget:
                values.pop(unused, None)
        return values[self.output_name]  # type: ignore[no-any-return]

    def starting_values(self, images: Tensor) -> dict[str, Any]:
        """The constants and the input by name: what `run_node` starts from."""
        values: dict[str, Any] = {name: getattr(self, slot) for name, slot in self.slots.items()}
        return values | self._shapes | {self.input_name: images}

    def operator_counts(self) -> Counter[str]:
        """How often each operator occurs."""
        return Counter(node.op for node in self.nodes)

    def _integers(self) -> Iterator[tuple[str, Tensor]]:
        """Small integer initializers: quantized weights and zero points."""
        for name, slot in self.slots.items():
            if slot in self._buffers:
                yield name, getattr(self, slot)

    def _add(self, proto: onnx.TensorProto) -> None:
        tensor = tensor_of(proto)
        if tensor.dtype in (torch.int64, torch.bool):
            self._shapes[proto.name] = tensor
            return
        slot = f"tensor{len(self.slots)}"  # names in a graph hold dots, attributes may not
        self.slots[proto.name] = slot
        if tensor.is_floating_point():
            self.register_parameter(slot, nn.Parameter(tensor))
        else:
            self.register_buffer(slot, tensor)


def run_node(node: Node, values: dict[str, Any]) -> str:
    """Compute ``node`` from ``values``, add its output to them, and return that output's name."""
    name = node.outputs[0]  # further outputs (a dropout's mask) matter in training only
    values[name] = OPERATORS[node.op](node, [values[given] if given else None for given in node.inputs])
    return name


def tensor_of(proto: onnx.TensorProto) -> Tensor:
    """The values of an ONNX tensor; 4-bit integers widened to 8 bits."""
    if proto.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(numpy_helper.to_array(proto).astype(np.float32)).to(torch.bfloat16)
    array = numpy_helper.to_array(proto)
    if proto.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        array = array.astype(np.int8 if proto.data_type == onnx.TensorProto.INT4 else np.uint8)
    return torch.from_numpy(array.copy())


def _decoded(node: onnx.NodeProto, types: dict[str, int], opset: int, subject: str) -> Node:
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        place = node.name or (node.output[0] if node.output else "unnamed")
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise RcompressError(
            subject,
            f"node {place} is a {operator}, which the PyTorch executor does not know",
            "simplify the graph with onnxsim, or run it in onnxruntime or openvino",
        )
    return Node(
        op=node.op_type,
        name=node.name,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
        opset=opset,
        element_types={i: types[name] for i, name in enumerate(node.input) if name in types},
    )


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return tensor_of(value) if isinstance(value, onnx.TensorProto) else value


def _last_uses(nodes: list[Node], keep: set[str]) -> list[list[str]]:
    """For each node, the tensors that no later node reads."""
    seen = set(keep) | {""}
    forget: list[list[str]] = []
    for node in reversed(nodes):
        names = dict.fromkeys((*node.inputs, *node.outputs))
        forget.append([name for name in names if name not in seen])
        seen |= set(names)
    return forget[::-1]
