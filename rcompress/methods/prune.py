"""Structured pruning: channels are really removed, in every layer that shares them.

Groups (`group_tracing`), scores (`importance`), widths (`channel_selection`), and the cut: each can be used alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import nn

from rcompress.errors import RcompressError
from rcompress.measure.complexity import module_complexity
from rcompress.methods.channel_groups import ChannelGraph, Removal
from rcompress.methods.channel_selection import (
    Scores,
    kept_width,
    units_to_remove,
    widths_by_ranking,
    widths_by_ratio,
)
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.importance import Importance, comparable, score_channels
from rcompress.methods.importance_data import Batches

__all__ = ["PruneOptions", "PruneReport", "choose_widths", "cut", "kept_width", "prune", "prune_to"]

Scope = Literal["local", "global"]
InputSize = tuple[int, int, int]
DEFAULT_ROUND_TO = 16  # the fastest at equal MACs: tests/benchmarks/DECISIONS.md


@dataclass(frozen=True)
class PruneOptions:
    """How much goes, from where, and by which measure.

    Attributes:
        ratio: share of the channels to remove, 0 < ratio < 1.
        importance: what is kept, see `rcompress.methods.importance.score_channels`.
        round_to: widths are kept at the nearest multiple of this (engines run odd widths slowly); 1 for none.
        seed: of what is random.
        scope: ``local`` removes ``ratio`` of every group, ``global`` the least important of the whole network.
        keep_residual: leave the channels that cross residual additions.
        ignore: layers, or parts of the network, whose outputs stay.
    """

    ratio: float
    importance: Importance = "l2"
    round_to: int = DEFAULT_ROUND_TO
    seed: int = 0
    scope: Scope = "local"
    keep_residual: bool = False
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise RcompressError(
                "--ratio", f"{self.ratio} is not between 0 and 1", "0.6 removes 60 % of the channels"
            )
        known = self.importance in get_args(Importance) and self.scope in get_args(Scope)
        if self.round_to < 1 or not known:
            raise RcompressError("prune", "unknown importance, scope or rounding", "see rcompress prune -h")


@dataclass(frozen=True)
class PruneReport:
    """What was removed.

    Attributes:
        widths: by layer, those alone that could lose channels: before and after.
        parameters, macs: of one image, before and after.
        kept: why the other groups of channels stayed, by their first layer; the classes are not among them.
    """

    widths: dict[str, tuple[int, int]]
    parameters: tuple[int, int]
    macs: tuple[int | None, int | None]
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def channels_removed_percent(self) -> float:
        """Of all channels that could go: rounding makes it differ from the ratio asked for."""
        before, after = map(sum, zip(*self.widths.values(), strict=True))
        return float(100.0 * (1 - after / before))


def prune(
    module: nn.Module, input_size: InputSize, options: PruneOptions, batches: Batches | None = None
) -> PruneReport:
    """Remove channels from ``module`` in place; layers that share channels lose the same ones.

    Args:
        module: any network from (N, C, H, W) to (N, classes), on the CPU; its outputs stay.
        input_size: (C, H, W) of one image.
        batches: for the importances that need images, see `score_channels`.

    Raises:
        RcompressError: the network cannot be traced, or nothing in it can be pruned by this ratio and rounding.
    """
    graph = find_groups(module, input_size, options.keep_residual, options.ignore)
    scores = score_channels(graph, options.importance, batches, options.seed)
    return prune_to(graph, input_size, scores, choose_widths(graph, scores, options))


def choose_widths(graph: ChannelGraph, scores: Scores, options: PruneOptions) -> dict[str, int]:
    """Channels to keep, by group, for the groups that have scores."""
    groups = [group for group in graph.prunable if group.name in scores]
    if options.scope == "global":
        ranked = comparable(scores, options.importance)
        return widths_by_ranking(groups, ranked, options.ratio, options.round_to)
    return widths_by_ratio(groups, options.ratio, options.round_to)


def prune_to(
    graph: ChannelGraph, input_size: InputSize, scores: Scores, widths: Mapping[str, int]
) -> PruneReport:
    """Cut each group of ``graph`` to its width, the channels of the lowest scores first.

    Raises:
        RcompressError: nothing would go.
    """
    unscored = {group.name: "has no score" for group in graph.prunable if group.name not in scores}
    scored = [group for group in graph.prunable if group.name in scores]
    return cut(graph, input_size, units_to_remove(scored, scores, widths), unscored)


def cut(
    graph: ChannelGraph, input_size: InputSize, removed: Removal, kept: Mapping[str, str] | None = None
) -> PruneReport:
    """Cut the units that ``removed`` names, and tell what that did; ``kept``: why further groups stayed.

    All scores must have been taken before: a score must not depend on what another group has lost.

    Raises:
        RcompressError: ``removed`` names nothing.
    """
    if not any(removed.values()):
        raise nothing_goes()
    module = graph.module
    before_widths, before = _widths(graph), module_complexity(module, input_size)
    graph.cut(removed)
    after_widths, after = _widths(graph), module_complexity(module, input_size)
    widths = {name: (width, after_widths[name]) for name, width in before_widths.items()}
    reasons = {**graph.kept, **(kept or {})}
    return PruneReport(widths, (before.parameters, after.parameters), (before.macs, after.macs), reasons)


def nothing_goes() -> RcompressError:
    """The error of a pruning that removes nothing."""
    return RcompressError(
        "prune", "no layer loses a channel", "raise the share to remove or lower --round-to"
    )


def _widths(graph: ChannelGraph) -> dict[str, int]:
    """Outputs of the convolutions and linear layers whose channels may go."""
    names = {member.name for group in graph.prunable for member in group.members if member.side != "in"}
    return {
        name: layer.weight.shape[0]
        for name, layer in graph.module.named_modules()
        if name in names and isinstance(layer, nn.Conv2d | nn.Linear)
    }
