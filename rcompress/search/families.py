"""Networks from wide to narrow, one family for each scope: what a target picks from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import ChannelGroup
from rcompress.methods.channel_selection import Scores, widths_by_ranking, widths_by_ratio
from rcompress.search.allocation import Cost, Harms, Widths, allocate

RESOLUTION = 1e-4  # of a share: finer than one channel of any layer
STAGE = 0.85  # of the cost: so far curves are trusted before they are measured anew


class Family(Protocol):
    """Widths by group, narrower as more is to go."""

    def widths(self, share: float) -> Widths:
        """The member from which ``share`` is removed: 0 is the whole network, 1 the narrowest one."""

    def within(self, budget: float) -> Widths:
        """The widest member that costs at most ``budget``.

        Raises:
            RcompressError: even the narrowest costs more.
        """


@dataclass(frozen=True)
class Local:
    """The same share of each group."""

    groups: Sequence[ChannelGroup]
    round_to: int
    cost: Cost

    def widths(self, share: float) -> Widths:
        """See `Family`."""
        return widths_by_ratio(self.groups, float(share), self.round_to)

    def within(self, budget: float) -> Widths:
        """See `Family`."""
        return _widest_within(self.widths, self.cost, budget)


@dataclass(frozen=True)
class Global:
    """The lowest scores of the whole network."""

    groups: Sequence[ChannelGroup]
    scores: Scores
    round_to: int
    cost: Cost

    def widths(self, share: float) -> Widths:
        """See `Family`."""
        return widths_by_ranking(self.groups, self.scores, share, self.round_to)

    def within(self, budget: float) -> Widths:
        """See `Family`."""
        return _widest_within(self.widths, self.cost, budget)


class Adaptive:
    """The least harm for what is saved.

    The harms of single groups add up for small cuts alone, so that they are measured anew on the way down, on the
    network as it is by then (as NetAdapt does: Yang et al. 2018, algorithm 1).

    Args:
        cost: what the shares are of.
        harms: of narrowing single groups of the whole network.
        measure: the same of a network that has been cut to these widths; None: ``harms`` decide alone.
    """

    def __init__(self, cost: Cost, harms: Harms, measure: Callable[[Widths], Harms] | None = None) -> None:
        self._cost, self._measure = cost, measure
        self._stages = [harms]

    def widths(self, share: float) -> Widths:
        """See `Family`."""
        first = self._stages[0]
        most, least = self._cost(_widest(first)), self._cost(_narrowest(first))
        return self.within(most - share * (most - least))

    def within(self, budget: float) -> Widths:
        """See `Family`."""
        return allocate(self._stage_for(budget), self._cost, budget)

    def _stage_for(self, budget: float) -> Harms:
        """The harms measured closest above ``budget``."""
        stage, index = self._stages[0], 0
        while (end := STAGE * self._cost(_widest(stage))) > budget and self._measure is not None:
            index += 1
            if index == len(self._stages):
                if self._cost(_narrowest(stage)) > end:
                    break
                self._stages.append(self._measure(allocate(stage, self._cost, end)))
            if self._cost(_widest(self._stages[index])) < budget:
                break
            stage = self._stages[index]
        return stage


def crossing(
    crossed: Callable[[float], bool],
    widths: Callable[[float], Widths],
    resolution: float = RESOLUTION,
    stride: float = 1.0,
) -> tuple[float, float | None]:
    """Where ``crossed`` turns true as the share grows from 0, where it is false: by strides, then by bisection.

    Members of equal widths are asked once.

    Returns:
        The last share below and the first beyond, at most ``resolution`` apart; (1, None) where it stays false.
    """
    known = {_key(widths(0.0)): False}

    def beyond(share: float) -> bool:
        key = _key(widths(share))
        if key not in known:
            known[key] = crossed(share)
        return known[key]

    low, high = 0.0, min(stride, 1.0)
    while not beyond(high):
        if high == 1.0:
            return 1.0, None
        low, high = high, min(high + stride, 1.0)
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return low, high


def _key(widths: Widths) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(widths.items()))


def _widest_within(widths: Callable[[float], Widths], cost: Cost, budget: float) -> Widths:
    _, share = crossing(lambda share: cost(widths(share)) <= budget, widths)
    if share is None:
        raise RcompressError(
            "prune",
            f"the narrowest network of this scope costs {cost(widths(1.0)):,.0f}, "
            f"more than the {budget:,.0f} asked for",
            "ask for less, lower --round-to, or use --scope adaptive",
        )
    return widths(share)


def _widest(harms: Mapping[str, Mapping[int, float]]) -> Widths:
    return {group: max(levels) for group, levels in harms.items()}


def _narrowest(harms: Mapping[str, Mapping[int, float]]) -> Widths:
    return {group: min(levels) for group, levels in harms.items()}
