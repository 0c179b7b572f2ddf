"""Finding the channel groups of a network: traced by Torch-Pruning, then tried out.

The dependency graph is Torch-Pruning's (Fang et al. 2023, DepGraph, section 3). It is not believed: dead channels are
removed from a copy of the network, and a group whose removal changes the outputs is not prunable.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import HEAD, ChannelGraph, ChannelGroup
from rcompress.methods.channel_members import Convolution, Member

TOLERANCE = 1e-3  # of the largest logit: FP32 sums in another order differ by less, wrong channels by more
TRACEABLE = "make its forward a plain chain of tensor operations"
Names = Mapping[int, str]
Failure = (
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    AttributeError,
    KeyError,
    IndexError,
    ArithmeticError,
)


def find_groups(
    module: nn.Module,
    input_size: tuple[int, int, int],
    keep_residual: bool = False,
    ignore: Sequence[str] = (),
) -> ChannelGraph:
    """Find, and try out, the channel groups of ``module``.

    Args:
        module: any network from (N, C, H, W) to (N, classes), on the CPU; it is set to evaluation mode.
        input_size: (C, H, W) of one image.
        keep_residual: leave the channels that cross a residual addition; only those inside blocks may go.
        ignore: layers, or parts of the network that hold layers, whose outputs stay.

    Raises:
        RcompressError: the network cannot be traced, or ``ignore`` names no part of it.
    """
    _require_parts(module, ignore)
    graph = _traced(module.eval(), input_size)
    if not graph.groups:
        raise RcompressError(
            "prune", "this network cannot be traced (no layer leads to its outputs)", TRACEABLE
        )
    broken = _broken(module, input_size, [group.name for group in graph.prunable])
    groups = [
        replace(
            group, reason=group.reason or broken.get(group.name) or _excluded(group, keep_residual, ignore)
        )
        for group in graph.groups
    ]
    return ChannelGraph(module, groups, graph.dependencies)


def _require_parts(module: nn.Module, names: Sequence[str]) -> None:
    parts = {name for name, _ in module.named_modules()} - {""}
    for name in names:
        if name not in parts:
            raise RcompressError("--ignore", f"the network has no layer {name!r}", "see rcompress inspect")


def _excluded(group: ChannelGroup, keep_residual: bool, ignore: Sequence[str]) -> str | None:
    if keep_residual and group.residual:
        return "crosses a residual addition (--keep-residual)"
    for maker in group.makers:
        if any(f"{maker.name}.".startswith(f"{name}.") for name in ignore):
            return f"{maker.name} is to be left alone (--ignore)"
    return None


def _traced(module: nn.Module, input_size: tuple[int, int, int]) -> ChannelGraph:
    """What the tracer says of the groups, and what follows from that alone."""
    image = torch.randn(1, *input_size)
    dependencies = _dependencies(module, image)
    head = _output_layer(module, image)
    parts = [*module.named_modules(), *module.named_parameters()]
    names = {id(part): name for name, part in parts}
    order = {name: place for place, (name, _) in enumerate(parts)}
    groups = [_group(raw, dependencies, names, head) for raw in dependencies.get_all_groups()]
    return ChannelGraph(module, sorted(groups, key=lambda group: order[group.name]), dependencies)


def _dependencies(module: nn.Module, image: Tensor) -> tp.DependencyGraph:
    try:
        with _all_trainable(module), torch.enable_grad():
            return tp.DependencyGraph().build_dependency(module, example_inputs=(image,), verbose=False)
    except Failure as error:
        raise RcompressError(
            "prune",
            f"this network cannot be traced ({error})",
            TRACEABLE,
        ) from error


@contextmanager
def _all_trainable(module: nn.Module) -> Iterator[None]:
    """The tracer follows gradients, and frozen layers would end them."""
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _output_layer(module: nn.Module, image: Tensor) -> nn.Module | None:
    """The layer whose output is the network's, where there is one."""
    ran: list[tuple[nn.Module, Any]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _inputs, output: ran.append((layer, output)))
        for layer in module.modules()
        if not any(layer.children())
    ]
    try:
        with torch.no_grad():
            logits = module(image)
    finally:
        for hook in hooks:
            hook.remove()
    return next((layer for layer, output in ran if output is logits), None)


def _group(
    raw: tp.dependency.Group, dependencies: tp.DependencyGraph, names: Names, head: nn.Module | None
) -> ChannelGroup:
    root = raw[0].dep.target.module
    members = sorted(_members(raw, dependencies, names), key=lambda member: member.layer is not root)
    width = len(raw[0].idxs)
    blocks = math.lcm(*(_layer_blocks(member) for member in members))
    group = ChannelGroup(names[id(root)], width, tuple(members), _is_residual(raw), blocks)
    group = replace(group, name=_first_maker(group, list(names.values())))
    return replace(group, reason=_reason(raw, group, head))


def _members(raw: tp.dependency.Group, dependencies: tp.DependencyGraph, names: Names) -> Iterator[Member]:
    for item in raw.items:
        target = item.dep.target
        if id(target.module) not in names or None in item.root_idxs:
            continue  # an operation without weights
        makes = dependencies.is_out_channel_pruning_fn(item.dep.handler)
        reads = dependencies.is_in_channel_pruning_fn(item.dep.handler)
        side = "both" if makes and reads else "out" if makes else "in"
        axis = target.pruning_dim if isinstance(target.module, nn.Parameter) else 0
        yield Member(
            names[id(target.module)],
            target.module,
            side,  # type: ignore[arg-type]
            torch.tensor(item.idxs),
            torch.tensor(item.root_idxs),
            axis,
        )


def _first_maker(group: ChannelGroup, order: Sequence[str]) -> str:
    """The first layer of the network that makes exactly these channels, in the same order as the tracer's root."""
    alike = [maker.name for maker in group.makers if torch.equal(maker.channels, maker.roots)]
    return min(alike or [group.name], key=order.index)


def _layer_blocks(member: Member) -> int:
    if member.side != "both" and isinstance(member.layer, Convolution):
        return member.layer.groups
    return member.layer.num_groups if isinstance(member.layer, nn.GroupNorm) else 1


def _is_residual(raw: tp.dependency.Group) -> bool:
    """Whether the channels of two or more layers are added."""
    for item in raw.items:
        node = item.dep.target
        operation = str(getattr(node.module, "_grad_fn", ""))
        if operation.startswith(("AddBackward", "SubBackward")):
            addends = [source for source in node.inputs if not isinstance(source.module, nn.Parameter)]
            if len(addends) > 1:
                return True
    return False


def _reason(raw: tp.dependency.Group, group: ChannelGroup, head: nn.Module | None) -> str | None:
    """Why the group can lose nothing, as far as the tracer tells."""
    layers = [item.dep.target.module for item in raw.items]
    to_output = any(isinstance(layer, tp.ops._OutputOp) for layer in layers)
    if to_output or any(maker.layer is head for maker in group.makers):
        return HEAD
    if any(isinstance(member.layer, nn.MultiheadAttention) for member in group.members):
        return "attention divides its channels among heads"
    if group.width % group.blocks or group.units < 2:
        return "has nothing to spare" if group.blocks == 1 else "each convolution group has a single channel"
    if group.blocks > 1 and not _divided_evenly(group):
        return "a grouped convolution takes a part of its channels"
    if any(_uneven(member, group.width) for member in group.members):
        return "parts of its channels go different ways"
    return None


def _divided_evenly(group: ChannelGroup) -> bool:
    """Whether the grouped layers number the channels as the group does."""
    grouped = [member for member in group.members if _layer_blocks(member) > 1]
    return all(torch.equal(member.channels, member.roots) for member in grouped)


def _uneven(member: Member, width: int) -> bool:
    counts = torch.bincount(member.roots, minlength=width)
    return bool(counts.min() != counts.max())


def _broken(module: nn.Module, input_size: tuple[int, int, int], names: Sequence[str]) -> dict[str, str]:
    """The groups among ``names`` that do not keep what the tracer promises, and what went wrong with each."""
    if _trial(module, input_size, names) is None:
        return {}
    faults = {name: _trial(module, input_size, [name]) for name in names}
    return {name: fault for name, fault in faults.items() if fault is not None}


def _trial(module: nn.Module, input_size: tuple[int, int, int], names: Sequence[str]) -> str | None:
    """Silence every other unit of the groups in a copy, cut them, and compare; None where the outputs stay."""
    trial = copy.deepcopy(module)
    graph = _traced(trial, input_size)
    removed = {name: range(0, graph[name].units, 2) for name in names}
    for name, units in removed.items():
        graph[name].silence(units)
    images = torch.randn(1, *input_size)
    with torch.no_grad(), _ChannelwiseNorm():
        expected = trial(images)
        try:
            graph.cut(removed)
            outputs = trial(images)
        except Failure as error:
            return f"the network does not run without some of its channels ({_last_line(error)})"
    difference = float((outputs - expected).abs().amax())
    if difference <= TOLERANCE * float(expected.abs().amax()):
        return None
    return "removing dead channels of it changes the outputs: the tracer pairs them wrongly"


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


class _ChannelwiseNorm(TorchFunctionMode):
    """Layer and group normalisation without their statistics, which depend on how many channels there are."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        stand_ins: dict[Callable[..., Any], Callable[..., Any]] = {
            F.layer_norm: _scale_last,
            F.group_norm: _scale_channels,
        }
        stand_in = stand_ins.get(function, function)
        return stand_in(*args, **(kwargs or {}))


def _scale_last(
    values: Tensor, _shape: object, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 0
) -> Tensor:
    """What layer normalisation does to each value by itself."""
    del eps
    scaled = values if weight is None else values * weight
    return scaled if bias is None else scaled + bias


def _scale_channels(
    values: Tensor, _groups: object, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 0
) -> Tensor:
    """What group normalisation does to each value by itself."""
    return _scale_last(values.movedim(1, -1), _groups, weight, bias, eps).movedim(-1, 1)
