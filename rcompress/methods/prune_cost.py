"""Parameters and MACs of a network before it is cut: exact, and cheap enough for a search over widths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from rcompress.measure.complexity import module_complexity
from rcompress.methods.channel_groups import ChannelGraph
from rcompress.methods.channel_members import Member


@dataclass(frozen=True)
class Cost:
    """Parameters of a network, and its MACs for one image."""

    parameters: int
    macs: int


@dataclass
class _Axis:
    """One side of a parameter: its channels, and how many of them go with one channel of each group."""

    length: int
    each: Counter[str] = field(default_factory=Counter)


@dataclass
class _Share:
    """A parameter that shrinks with its axes, and the MACs of its layer, which shrink alike."""

    elements: int
    macs: int
    axes: dict[str, _Axis] = field(default_factory=dict)


class CostModel:
    """What a network costs at any widths of its channel groups.

    A convolution's or linear layer's MACs are its weight's elements times the positions where it is applied, and
    positions do not change: both shrink by the same factors.
    """

    def __init__(self, graph: ChannelGraph, input_size: tuple[int, int, int]) -> None:
        """Measure ``graph.module`` once, on an image (C, H, W)."""
        measured = module_complexity(graph.module, input_size)
        self._widths = {group.name: group.width for group in graph.groups}
        self._macs = {layer.name: layer.macs or 0 for layer in measured.layers}
        self._shares: dict[int, _Share] = {}
        for group in graph.prunable:
            for member in group.members:
                self._note(group.name, member)
        shares = self._shares.values()
        self._fixed = Cost(
            measured.parameters - sum(share.elements for share in shares),
            (measured.macs or 0) - sum(share.macs for share in shares),
        )

    def predict(self, widths: Mapping[str, int]) -> Cost:
        """The cost with ``widths``, channels by group; groups that are not named stay as they are."""
        gone = {name: self._widths[name] - width for name, width in widths.items()}
        parameters, macs = self._fixed.parameters, self._fixed.macs
        for share in self._shares.values():
            kept = whole = 1
            for axis in share.axes.values():
                kept *= axis.length - sum(count * gone.get(name, 0) for name, count in axis.each.items())
                whole *= axis.length
            parameters += share.elements * kept // whole
            macs += share.macs * kept // whole
        return Cost(parameters, macs)

    def _note(self, group: str, member: Member) -> None:
        for parameter in member.parameters():
            share = self._shares.get(id(parameter))
            if share is None:
                is_weight = isinstance(member.layer, nn.Module) and parameter is member.layer.weight
                share = _Share(parameter.numel(), self._macs.get(member.name, 0) if is_weight else 0)
                self._shares[id(parameter)] = share
            axis = share.axes.setdefault(member.side, _Axis(member.length(parameter)))
            axis.each[group] += int((member.roots == member.roots[0]).sum())
