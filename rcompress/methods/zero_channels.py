"""Channels that carry nothing: filters set to zero are found, and what depends on them is made to need them no more.

A zero filter followed by BatchNorm gives a constant, not zero. A constant of zero can simply go. Other constants of
one group can be merged exactly: a convolution's or linear layer's answer to constant inputs is the sum over them of
constant times weights, so that one channel with the weights of all can stand for all, whatever the padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import ChannelGraph, ChannelGroup
from rcompress.methods.channel_members import Member
from rcompress.methods.prune import InputSize, PruneReport, cut
from rcompress.models.cifar_resnet import FixedShortcut

IMAGES = 4
CONSTANT = 1e-5  # relative spread within a constant: kernels round the ends of a row differently
TOLERANCE = 1e-3  # of the largest logit


@dataclass
class ZeroChannels:
    """What was found.

    Attributes:
        removable: units by group; the network's outputs are the same without them.
        merged: how many of these handed a constant on to a channel that stays.
        stuck: zero filters that stay: layer, how many, and why.
    """

    removable: dict[str, list[int]] = field(default_factory=dict)
    merged: int = 0
    stuck: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Reading:
    """What one layer reads of a group: constants (width, each), NaN where the values differ from place to place."""

    reader: Member
    constants: Tensor


def prune_zeros(
    graph: ChannelGraph, input_size: InputSize, round_to: int = 1
) -> tuple[PruneReport, ZeroChannels]:
    """Remove the filters of ``graph.module`` that are zero, and what is coupled to them; the outputs stay the same.

    Args:
        graph: its ``prunable`` groups lose channels; zero filters of all others stay.
        input_size: (C, H, W) of one image.
        round_to: some zero filters stay so that widths are multiples of this.

    Raises:
        RcompressError: no filter is zero, none can go, or (a bug or a very badly scaled network) the outputs moved.
    """
    images = torch.randn(IMAGES, *input_size)
    with torch.no_grad():
        expected = graph.module(images)
        found = merge_zero_channels(graph, images, round_to)
        if not any(found.removable.values()):
            raise RcompressError("prune", *_nothing(found))
        report = cut(graph, input_size, found.removable)
        difference = float((graph.module(images) - expected).abs().amax())
    if difference > TOLERANCE * float(expected.abs().amax()):
        raise RcompressError("prune", f"the outputs moved by {difference:.3g}", "leave --from-mask out")
    return report, found


def merge_zero_channels(graph: ChannelGraph, images: Tensor, round_to: int = 1) -> ZeroChannels:
    """Find the zero filters, and rewrite the weights that read them so that the removable ones can go.

    ``images`` (N, C, H, W) show what is constant. The outputs stay the same within floating-point error. Of the
    removable ones so many stay that widths are multiples of ``round_to``.

    Raises:
        RcompressError: no filter is zero.
    """
    inputs = _input_constants(graph, images)
    found = ZeroChannels()
    for group in graph.groups:
        learned = [maker for maker in group.makers if not isinstance(maker.layer, FixedShortcut)]
        zero = {maker.name: _zero_filters(maker, group.width) for maker in learned}
        if not any(bool(rows.any()) for rows in zero.values()):
            continue
        nobody = torch.zeros(group.width, dtype=torch.bool)
        if group.reason is not None or group.shares_statistics or not group.readers:
            why = group.reason or "not only convolutions and linear layers read them"
            _note_stuck(found, zero, nobody, why)
        else:
            readings = [_reading(reader, group, inputs) for reader in group.readers]
            _settle(group, zero, readings, round_to, found)
    if not found.removable and not found.stuck:
        raise RcompressError(
            "prune", "no filter of this network is zero", "make some so: rcompress sparsify --filters 0.3"
        )
    return found


def _nothing(found: ZeroChannels) -> tuple[str, str]:
    """Fault and remedy where no zero filter can go."""
    if not found.stuck:
        return "the zero filters are too few for the rounding", "lower --round-to"
    layer, count, why = found.stuck[0]
    return f"no zero filter can go (the {count} of {layer}: {why})", "prune by --ratio instead"


def _settle(
    group: ChannelGroup,
    zero: Mapping[str, Tensor],
    readings: list[_Reading],
    round_to: int,
    found: ZeroChannels,
) -> None:
    """Decide which channels of one group go, and merge what they leave."""
    dead = torch.stack([_zero_filters(maker, group.width) for maker in group.makers]).all(0)
    _note_stuck(found, zero, dead, "the same channels of coupled layers are not zero")
    constants = torch.cat([reading.constants for reading in readings], dim=1)  # (width, all readers' values)
    varying = dead & constants.isnan().any(1)
    _note_stuck(found, zero, ~varying, "the constant that BatchNorm makes of them ends at zero padding")
    by_unit = (dead & ~varying).view(group.blocks, -1).all(0)
    if group.blocks > 1:
        partly = ~_marked(group, by_unit.nonzero().flatten().tolist()) & dead & ~varying
        _note_stuck(found, zero, ~partly, "each group of the grouped convolution must lose the same ones")
    silent = by_unit & (constants == 0).all(1).view(group.blocks, -1).all(0)
    loud = (by_unit & ~silent).nonzero().flatten().tolist()
    heir = _heir(group, loud, constants)
    if heir is None:
        _note_stuck(
            found, zero, ~_marked(group, loud), "what BatchNorm makes of them is zero for some layers alone"
        )
        loud = []
    removable = sorted({*silent.nonzero().flatten().tolist(), *loud} - {heir})[: group.units - 1]  # one stays
    gone = _rounded(group, removable, round_to)
    if heir is not None and (heard := [unit for unit in loud if unit in gone]):
        for reading in readings:
            _merge(group, reading, [heir, *heard], heir)
        found.merged += len(heard)
    if removable:
        found.removable[group.name] = gone


def _marked(group: ChannelGroup, units: list[int]) -> Tensor:
    """bool (width,), true for ``units``."""
    marks = torch.zeros(group.width, dtype=torch.bool)
    marks[group.channels_of(units)] = True
    return marks


def _heir(group: ChannelGroup, loud: list[int], constants: Tensor) -> int | None:
    """The unit of ``loud`` that stands for all best: what matters of its constants is far from zero."""
    if not loud:
        return None
    matters = (constants[group.channels_of(loud)] != 0).any(0)
    smallest = [float(constants[group.channels_of([unit])][:, matters].abs().amin()) for unit in loud]
    best = max(range(len(loud)), key=smallest.__getitem__)
    return loud[best] if smallest[best] > 0 else None


def _merge(group: ChannelGroup, reading: _Reading, loud: list[int], heir: int) -> None:
    """Give the heir, in each block, the weights that answer for all of ``loud``."""
    weight = reading.reader.layer.get_parameter("weight")  # type: ignore[union-attr]
    rows = reading.reader.rows(weight, weight.detach())
    order = reading.reader.roots.argsort(stable=True).view(group.width, -1)
    for block in range(group.blocks):
        channels = torch.tensor(loud) + block * group.units
        to = heir + block * group.units
        wanted = reading.constants[channels]  # (loud, each)
        shares = torch.where(wanted == 0, 0.0, wanted / reading.constants[to])
        summed = (rows[order[channels]] * shares[..., None]).sum(0)
        reading.reader.write_rows(weight, order[to], summed)


def _rounded(group: ChannelGroup, units: list[int], round_to: int) -> list[int]:
    """As many of ``units`` as leave a multiple of ``round_to`` channels; all where grouped convolutions rule."""
    if group.blocks > 1:
        return units
    kept = math.ceil((group.width - len(units)) / round_to) * round_to
    return units[: max(0, group.width - kept)]


def _note_stuck(found: ZeroChannels, zero: Mapping[str, Tensor], settled: Tensor, why: str) -> None:
    """Name the layers with zero filters that are not ``settled``, bool (width,)."""
    for name, rows in zero.items():
        if count := int((rows & ~settled).sum()):
            found.stuck.append((name, count, why))


def _zero_filters(maker: Member, width: int) -> Tensor:
    """Which of the group's channels, bool (width,), this layer makes without looking at its input."""
    weight = maker.layer.get_parameter("weight")  # type: ignore[union-attr]
    live = torch.zeros(width).index_add_(0, maker.roots, maker.rows(weight, weight.detach()).abs().sum(1))
    return live == 0


def _reading(reader: Member, group: ChannelGroup, inputs: Mapping[str, Tensor]) -> _Reading:
    order = reader.roots.argsort(stable=True)
    return _Reading(reader, inputs[reader.name][reader.channels[order]].view(group.width, -1))


def _input_constants(graph: ChannelGraph, images: Tensor) -> dict[str, Tensor]:
    """What each reading layer sees, by layer: float32 (inputs,), NaN where it differs over images and places."""
    seen: dict[str, Tensor] = {}
    readers = {reader.name: reader.layer for group in graph.prunable for reader in group.readers}
    with _watched(readers, seen):
        graph.module(images)
    return seen


@contextmanager
def _watched(layers: Mapping[str, object], seen: dict[str, Tensor]) -> Iterator[None]:
    def watch(name: str, axis: int) -> Callable[..., None]:
        def record(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].movedim(axis, 0).flatten(1)
            low, high = values.aminmax(dim=1)
            middle = values.median(dim=1).values
            constant = torch.where(high - low <= CONSTANT * middle.abs(), middle, torch.nan)
            before = seen.get(name)
            seen[name] = constant if before is None else torch.where(before == constant, constant, torch.nan)

        return record

    hooks = [
        layer.register_forward_pre_hook(watch(name, -1 if isinstance(layer, nn.Linear) else 1))
        for name, layer in layers.items()
        if isinstance(layer, nn.Module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
