"""Where to cut: the widths of least harm whose cost stays within a budget.

A multiple-choice knapsack whose costs multiply (a convolution's MACs are the product of its two widths), so that
neither dynamic programming nor one Lagrange multiplier is exact: two greedy solutions, from above and from below, are
improved by exchanging channels between two groups until no exchange helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rcompress.errors import RcompressError

Widths = dict[str, int]
Harms = Mapping[str, Mapping[int, float]]
"""By group: every width allowed, and the harm done by it; the harms of the groups are taken to add up."""
Cost = Callable[[Mapping[str, int]], float]
"""Of a whole network of these widths; never less for a wider group."""


def allocate(harms: Harms, cost: Cost, budget: float) -> Widths:
    """The widths of least summed harm among those that cost at most ``budget``.

    Raises:
        RcompressError: even the narrowest network costs more.
    """
    problem = _Problem({group: dict(sorted(levels.items())) for group, levels in harms.items()}, cost, budget)
    narrowest = {group: min(levels) for group, levels in harms.items()}
    if cost(narrowest) > budget:
        raise RcompressError(
            "prune",
            f"the narrowest network costs {cost(narrowest):,.0f}, more than the {budget:,.0f} asked for",
            "ask for less, lower --round-to, or keep fewer layers",
        )
    widest = {group: max(levels) for group, levels in harms.items()}
    if cost(widest) <= budget:
        return problem.improved(widest)
    found = [problem.improved(problem.shrunk(widest)), problem.improved(narrowest)]
    return min(found, key=problem.harm)


def total_harm(harms: Harms, widths: Mapping[str, int]) -> float:
    """What `allocate` minimises."""
    return sum(harms[group][width] for group, width in widths.items())


@dataclass(frozen=True)
class _Problem:
    harms: dict[str, dict[int, float]]
    cost: Cost
    budget: float

    def harm(self, widths: Widths) -> float:
        return total_harm(self.harms, widths)

    def shrunk(self, widths: Widths) -> Widths:
        """Narrow one group after another, by the least harm per cost saved, until the budget is met."""
        widths = dict(widths)
        while (now := self.cost(widths)) > self.budget:
            savings = {group: self._saved_per_channel(widths, group, now) for group in widths}
            group, width = min(
                self._down(widths), key=lambda change: self._rate(widths, change, savings[change[0]])
            )
            widths[group] = width
        return widths

    def improved(self, widths: Widths) -> Widths:
        """Widen a group, at the expense of another where it must be, as long as the harm goes down."""
        widths = dict(widths)
        while (better := self._best_exchange(widths)) is not None:
            widths = better
        return widths

    def _best_exchange(self, widths: Widths) -> Widths | None:
        best, least = None, self.harm(widths) - 1e-12
        for group, width in self._up(widths):
            wider = {**widths, group: width}
            gained = self.harm(wider)
            if gained >= least:
                continue
            if self.cost(wider) <= self.budget:
                best, least = wider, gained
                continue
            for other, narrower in self._down(widths):
                lost = gained + self.harms[other][narrower] - self.harms[other][widths[other]]
                if other != group and lost < least:
                    exchanged = {**wider, other: narrower}
                    if self.cost(exchanged) <= self.budget:
                        best, least = exchanged, lost
        return best

    def _saved_per_channel(self, widths: Widths, group: str, now: float) -> float:
        """Costs are straight lines in each width, but for layers that read and make the same channels."""
        narrowest = min(self.harms[group])
        gone = widths[group] - narrowest
        return (now - self.cost({**widths, group: narrowest})) / gone if gone else 0.0

    def _rate(self, widths: Widths, change: tuple[str, int], saved_per_channel: float) -> float:
        group, width = change
        added = self.harms[group][width] - self.harms[group][widths[group]]
        saved = saved_per_channel * (widths[group] - width)
        return added / saved if saved > 0 else float("inf")

    def _down(self, widths: Widths) -> Iterator[tuple[str, int]]:
        return ((g, level) for g, levels in self.harms.items() for level in levels if level < widths[g])

    def _up(self, widths: Widths) -> Iterator[tuple[str, int]]:
        return ((g, level) for g, levels in self.harms.items() for level in levels if level > widths[g])
