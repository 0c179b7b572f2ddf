"""Multiply-accumulates and parameters, layer by layer, of a module and of an ONNX graph.

A MAC is one multiplication with its addition, for one image; biases, normalisation and activations are not
counted. Both functions count convolutions and matrix products, so that a module and its export agree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import NodeProto
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rcompress.measure.bits import OperandBits
from rcompress.measure.graph import (
    INTEGER_VALUES,
    PASSES_ON,
    attribute_ints,
    element_count,
    parameter_tensors,
    parameters_by_node,
    value_shapes,
)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LayerCost:
    """One layer: its output's shape (batch axis included), its own parameters, its MACs for one image.

    ``macs`` is None, and ``output_shape`` empty, where the shapes cannot be inferred. ``bits`` are those of the wider
    operand of its multiplications.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int | None
    bits: int = 32


@dataclass(frozen=True)
class Complexity:
    """A network's layers in the order of execution, and its totals for one image.

    The totals can exceed the sums over ``layers``: they also hold what belongs to no single layer. ``macs``
    is None where those of one layer are not known.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    macs: int | None

    @property
    def bit_operations(self) -> int | None:
        """Each MAC as often as its wider operand has bits; what belongs to no layer counts 32."""
        if self.macs is None:
            return None
        of_layers = [(layer.macs or 0, layer.bits) for layer in self.layers]
        rest = self.macs - sum(macs for macs, _ in of_layers)
        return sum(macs * bits for macs, bits in of_layers) + 32 * rest


def module_complexity(module: nn.Module, input_size: tuple[int, int, int]) -> Complexity:
    """Run ``module`` once on one image (C, H, W) of zeros; PyTorch's own formulas give its FLOPs: halved."""
    counter = _FlopCounter()
    image = torch.zeros(1, *input_size, device=next(module.parameters()).device)
    shapes = _run_recording_shapes(module, image, counter)
    layers = dict(module.named_modules())
    costs = tuple(
        LayerCost(
            name=name,
            kind=type(layers[name]).__name__,
            output_shape=shape,
            parameters=_own_parameters(layers[name]),
            macs=counter.flops[name] // 2,
        )
        for name, shape in shapes.items()
    )
    return Complexity(costs, _own_parameters(module), counter.flops.total() // 2)


def graph_complexity(model: onnx.ModelProto) -> Complexity:
    """Count from the shapes that ONNX infers; (de)quantizers belong to the layer they feed."""
    shapes = value_shapes(model)
    tensors = parameter_tensors(model)
    batch = shapes.get(model.graph.input[0].name, (1,))[0]
    operands = OperandBits(model)
    costs = []
    for node, names in zip(model.graph.node, parameters_by_node(model), strict=True):
        if node.op_type in PASSES_ON:
            continue
        costs.append(
            LayerCost(
                name=node.name or node.output[0],
                kind=node.op_type,
                output_shape=shapes.get(node.output[0], ()),
                parameters=sum(element_count(tensors[name]) for name in names),
                macs=_node_macs(node, shapes, batch),
                bits=operands.widest(node) if node.op_type in MAC_COUNTERS else 32,
            )
        )
    parameters = sum(element_count(tensor) for tensor in tensors.values())
    known = [cost.macs for cost in costs if cost.macs is not None]
    return Complexity(tuple(costs), parameters, sum(known) if len(known) == len(costs) else None)


class _FlopCounter(TorchDispatchMode):
    """FLOPs by the layer that runs ("" outside of all).

    PyTorch's `FlopCounterMode` finds the same, but decomposes every other operation first, for which it imports a
    compiler: seconds, of which each command would pay its share.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = ""
        self.flops: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or PyTorch imports the compiler after all, to tell it to look away

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops[self.layer] += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _run_recording_shapes(
    module: nn.Module, image: Tensor, counter: _FlopCounter
) -> dict[str, tuple[int, ...]]:
    """The output shape of every leaf layer that ran, by its name, in the order of the first call."""
    shapes: dict[str, tuple[int, ...]] = {}

    def entered(name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            counter.layer = name

        return enter

    def left(name: str) -> Callable[..., None]:
        def leave(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            counter.layer = ""
            if isinstance(output, Tensor):
                shapes.setdefault(name, tuple(output.shape))

        return leave

    leaves = [(name, layer) for name, layer in module.named_modules() if name and not any(layer.children())]
    hooks = [layer.register_forward_pre_hook(entered(name)) for name, layer in leaves]
    hooks += [layer.register_forward_hook(left(name)) for name, layer in leaves]
    was_training = module.training
    try:
        with torch.no_grad(), counter:
            module.eval()(image)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return shapes


def _own_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _node_macs(node: NodeProto, shapes: Shapes, batch: int) -> int | None:
    if node.op_type in INTEGER_VALUES:
        return None
    count = MAC_COUNTERS.get(node.op_type)
    if count is None:
        return 0
    if not all(name in shapes for name in (*node.input[:2], node.output[0])):
        return None
    return count(node, shapes) // batch


def _conv_macs(node: NodeProto, shapes: Shapes) -> int:
    """Each output value takes the products of one filter: (out, in / groups, kernel...)."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _transposed_conv_macs(node: NodeProto, shapes: Shapes) -> int:
    """Each input value is spread by one filter: (in, out / groups, kernel...)."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _gemm_macs(node: NodeProto, shapes: Shapes) -> int:
    shared = shapes[node.input[0]][0 if attribute_ints(node, "transA", [0])[0] else 1]
    return math.prod(shapes[node.output[0]]) * shared


def _matmul_macs(node: NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


MAC_COUNTERS: dict[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _conv_macs,
    "ConvTranspose": _transposed_conv_macs,
    "Gemm": _gemm_macs,
    "MatMul": _matmul_macs,
}
