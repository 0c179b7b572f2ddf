"""The solver finds what trying everything finds, and never spends more than it may."""

from __future__ import annotations

import itertools
import random

import pytest

from rcompress.errors import RcompressError
from rcompress.search.allocation import allocate, total_harm

LEVELS = (4, 8, 12, 16)


def instance(seed, groups=5, convex=True):
    """A chain of convolutions: each cost is the product of two neighbouring widths, as MACs are."""
    generator = random.Random(seed)
    names = [f"g{index}" for index in range(groups)]
    sizes = [generator.choice((1, 4, 16)) for _ in range(groups + 1)]

    def cost(widths):
        chain = [3, *(widths[name] for name in names), 10]
        return sum(
            size * before * after for size, before, after in zip(sizes, chain, chain[1:], strict=False)
        )

    def curve():
        steps = (
            sorted(generator.random() for _ in LEVELS[1:])
            if convex
            else [generator.random() for _ in LEVELS[1:]]
        )
        scale = generator.choice((0.1, 1.0, 10.0))
        harms = itertools.accumulate((scale * step for step in steps), initial=0.0)
        return dict(zip(reversed(LEVELS), harms, strict=True))

    return {name: curve() for name in names}, cost


def best_of_all(harms, cost, budget):
    every = (dict(zip(harms, widths, strict=True)) for widths in itertools.product(*harms.values()))
    return min(total_harm(harms, widths) for widths in every if cost(widths) <= budget)


@pytest.mark.parametrize("convex", [True, False], ids=["convex", "any"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_as_good_as_trying_everything(convex, share):
    ratios = []
    for seed in range(25):
        harms, cost = instance(seed, convex=convex)
        budget = share * cost({name: max(LEVELS) for name in harms})
        found = allocate(harms, cost, budget)
        assert cost(found) <= budget
        ratios.append(total_harm(harms, found) / best_of_all(harms, cost, budget))
    assert sum(ratio < 1 + 1e-9 for ratio in ratios) >= 24
    assert max(ratios) < 1.01


def test_a_budget_for_everything_cuts_nothing():
    harms, cost = instance(0)
    whole = {name: max(LEVELS) for name in harms}
    assert allocate(harms, cost, cost(whole)) == whole


def test_harmless_channels_that_save_nothing_stay():
    harms = {"a": {8: 0.0, 16: 0.0}, "b": {8: 1.0, 16: 0.0}}
    assert allocate(harms, lambda widths: widths["b"], 8) == {"a": 16, "b": 8}


def test_a_budget_below_the_narrowest_network_is_refused():
    harms, cost = instance(0)
    with pytest.raises(RcompressError, match="the narrowest network costs"):
        allocate(harms, cost, cost({name: min(LEVELS) for name in harms}) - 1)
