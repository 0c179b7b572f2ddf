"""Widths that meet a target: computed for parameters, MACs and size, measured for latency and accuracy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import ChannelGroup
from rcompress.methods.channel_selection import Scores
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.prune import InputSize, prune_to
from rcompress.search.allocation import Cost, Widths
from rcompress.search.families import Family, narrowest_that, widest_that

Quantity = Literal["macs", "parameters", "size_bytes", "latency_ms", "drop_points"]
MEASURED_RESOLUTION = 0.01  # of the share to remove: each step is one network built or evaluated
MOST_LEVELS = 32  # widths of one group that the solver tells apart


@dataclass(frozen=True)
class Target:
    """What the network is to be.

    Attributes:
        quantity: what of it.
        amount: at most so much; of ``drop_points``, points of top-1 accuracy lost on the data for choices.
        relative: whether ``amount`` is a share of what the whole network has.
    """

    quantity: Quantity
    amount: float
    relative: bool = False

    def limit(self, whole: float) -> float:
        """``amount`` in the quantity's own unit, for a network that has ``whole`` of it before anything goes.

        Raises:
            RcompressError: nothing would have to go.
        """
        limit = self.amount * whole if self.relative else self.amount
        if self.quantity != "drop_points" and limit >= whole:
            raise RcompressError(
                "prune",
                f"the network already meets the target ({self.quantity} {whole:,.4g})",
                "ask for less",
            )
        return limit


@dataclass(frozen=True)
class Fit:
    """What a search found.

    Attributes:
        widths: channels to keep, by group.
        quantity, limit, reached: what was asked for, and what the network of these widths has.
        trials: networks built or evaluated on the way; 0 where all was computed.
    """

    widths: Widths
    quantity: Quantity
    limit: float
    reached: float
    trials: int = 0

    def metrics(self) -> dict[str, Any]:
        """For a lineage step."""
        return {
            "target": {"quantity": self.quantity, "limit": self.limit, "reached": self.reached},
            "target_trials": self.trials,
        }


def fit_computed(family: Family, cost: Cost, whole: float, target: Target) -> Fit:
    """The widest member of ``family`` whose ``cost``, in the target's unit, stays within the target.

    Raises:
        RcompressError: the target is met already, or cannot be met.
    """
    limit = target.limit(whole)
    widths = family.within(cost, limit)
    return Fit(widths, target.quantity, limit, cost(widths))


def fit_latency(family: Family, measure: Callable[[Widths], float], target: Target, whole: float) -> Fit:
    """The widest member of ``family`` that ``measure`` finds fast enough, by bisection.

    Args:
        measure: milliseconds of a network of these widths, freshly built.
        whole: those of the whole network, measured likewise.

    Raises:
        RcompressError: the target is met already, or the narrowest member is too slow.
    """
    limit = target.limit(whole)
    asked = _Remembered(measure)
    if (least := asked(family.widths(1.0))) > limit:
        raise RcompressError(
            "prune",
            f"the narrowest network of this scope takes {least:.3g} ms, more than the {limit:.3g} ms asked for",
            "ask for less, add --int8 or more --threads, or use another --backend",
        )
    share = widest_that(lambda s: asked(family.widths(s)) <= limit, family.widths, MEASURED_RESOLUTION)
    widths = family.widths(share)
    return Fit(widths, target.quantity, limit, asked(widths), asked.trials)


def fit_drop(family: Family, measure: Callable[[Widths], float], target: Target, whole: float) -> Fit:
    """The narrowest member of ``family`` that loses no more points than the target allows, by bisection.

    Args:
        measure: top-1 accuracy in percent of a network of these widths.
        whole: that of the whole network.
    """
    limit = target.limit(whole)
    asked = _Remembered(lambda widths: whole - measure(widths))
    share = narrowest_that(lambda s: asked(family.widths(s)) <= limit, family.widths, MEASURED_RESOLUTION)
    widths = family.widths(share)
    return Fit(widths, target.quantity, limit, asked(widths), asked.trials)


def levels(group: ChannelGroup, round_to: int) -> list[int]:
    """The widths among which a solver chooses: the group's own and multiples of ``round_to`` below it."""
    multiple = round_to if group.blocks == 1 else group.blocks
    count = max(1, (group.width - 1) // multiple)
    step = multiple * -(-count // MOST_LEVELS)
    return [*range(step, group.width, step), group.width]


def candidate(module: nn.Module, input_size: InputSize, scores: Scores, widths: Widths) -> nn.Module:
    """A copy of ``module``, on the CPU, cut to ``widths``; see `prune_to`."""
    copied = copy.deepcopy(module)
    graph = find_groups(copied, input_size)
    if any(widths.get(group.name, group.width) != group.width for group in graph.groups):
        prune_to(graph, input_size, scores, widths)
    return copied


def whole_widths(groups: Sequence[ChannelGroup]) -> Widths:
    """Of the network before anything goes."""
    return {group.name: group.width for group in groups}


class _Remembered:
    """A measurement that is made once for equal widths, and counted."""

    def __init__(self, measure: Callable[[Widths], float]) -> None:
        self._measure = measure
        self._known: dict[tuple[tuple[str, int], ...], float] = {}

    def __call__(self, widths: Widths) -> float:
        key = tuple(sorted(widths.items()))
        if key not in self._known:
            self._known[key] = self._measure(widths)
        return self._known[key]

    @property
    def trials(self) -> int:
        return len(self._known)
