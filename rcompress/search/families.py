"""Networks from wide to narrow, one family for each scope: what a target picks from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import ChannelGroup
from rcompress.methods.channel_selection import Scores, widths_by_ranking, widths_by_ratio
from rcompress.search.allocation import Cost, Harms, Widths, allocate

RESOLUTION = 1e-4  # of a share: finer than one channel of any layer


class Family(Protocol):
    """Widths by group, narrower as more is to go."""

    def widths(self, share: float) -> Widths:
        """The member from which ``share`` is removed: 0 is the whole network, 1 the narrowest one."""

    def within(self, cost: Cost, budget: float) -> Widths:
        """The widest member that costs at most ``budget``.

        Raises:
            RcompressError: even the narrowest costs more.
        """


@dataclass(frozen=True)
class Local:
    """The same share of each group."""

    groups: Sequence[ChannelGroup]
    round_to: int

    def widths(self, share: float) -> Widths:
        """See `Family`."""
        return widths_by_ratio(self.groups, float(share), self.round_to)

    def within(self, cost: Cost, budget: float) -> Widths:
        """See `Family`."""
        return _widest_within(self.widths, cost, budget)


@dataclass(frozen=True)
class Global:
    """The lowest scores of the whole network."""

    groups: Sequence[ChannelGroup]
    scores: Scores
    round_to: int

    def widths(self, share: float) -> Widths:
        """See `Family`."""
        return widths_by_ranking(self.groups, self.scores, share, self.round_to)

    def within(self, cost: Cost, budget: float) -> Widths:
        """See `Family`."""
        return _widest_within(self.widths, cost, budget)


@dataclass(frozen=True)
class Adaptive:
    """The least harm for what is saved; ``cost`` is what the shares are of."""

    harms: Harms
    cost: Cost

    def widths(self, share: float) -> Widths:
        """See `Family`."""
        most = self.cost({group: max(levels) for group, levels in self.harms.items()})
        least = self.cost({group: min(levels) for group, levels in self.harms.items()})
        return allocate(self.harms, self.cost, most - share * (most - least))

    def within(self, cost: Cost, budget: float) -> Widths:
        """See `Family`."""
        return allocate(self.harms, cost, budget)


def narrowest_that(
    holds: Callable[[float], bool], widths: Callable[[float], Widths], resolution: float = RESOLUTION
) -> float:
    """The largest share for which ``holds`` is true, found by bisection; it must hold at 0.

    Members of equal widths are asked once.
    """
    return 1.0 - _boundary(lambda share: holds(1.0 - share), lambda share: widths(1.0 - share), resolution)


def widest_that(
    holds: Callable[[float], bool], widths: Callable[[float], Widths], resolution: float = RESOLUTION
) -> float:
    """The smallest share for which ``holds`` is true, found by bisection; it must hold at 1."""
    return _boundary(holds, widths, resolution)


def _boundary(holds: Callable[[float], bool], widths: Callable[[float], Widths], resolution: float) -> float:
    """The smallest share in 0..1 from which on ``holds`` is true."""
    known = {_key(widths(0.0)): holds(0.0), _key(widths(1.0)): True}
    if known[_key(widths(0.0))]:
        return 0.0
    low, high = 0.0, 1.0
    while high - low > resolution:
        middle = (low + high) / 2
        key = _key(widths(middle))
        if key not in known:
            known[key] = holds(middle)
        low, high = (low, middle) if known[key] else (middle, high)
    return high


def _key(widths: Widths) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(widths.items()))


def _widest_within(widths: Callable[[float], Widths], cost: Cost, budget: float) -> Widths:
    if (least := cost(widths(1.0))) > budget:
        raise RcompressError(
            "prune",
            f"the narrowest network of this scope costs {least:,.0f}, more than the {budget:,.0f} asked for",
            "ask for less, lower --round-to, or use --scope adaptive",
        )
    return widths(widest_that(lambda share: cost(widths(share)) <= budget, widths))
