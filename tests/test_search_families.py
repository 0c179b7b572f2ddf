"""Families of networks: from wide to narrow, within a budget, and measured anew on the way down."""

from __future__ import annotations

import pytest
import torch
from small_net import ARCH, small

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.measure.complexity import module_complexity
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.importance import comparable, score_channels
from rcompress.models import build_model
from rcompress.search.adaptation import measured_adaptation
from rcompress.search.families import Adaptive, Global, Local, crossing
from rcompress.search.material import Material
from rcompress.training import Settings

SIZE = (3, 32, 32)
ROUND_TO = 4


@pytest.fixture(scope="module")
def material():
    graph = find_groups(build_model("resnet20", 10).eval(), SIZE)
    spec = ModelSpec(10, Preprocessing(SIZE, (0.5,) * 3, (0.25,) * 3), "resnet20")
    return Material(graph, spec, score_channels(graph, "l2"), 1_100_000)


def family(material, scope, cost):
    if scope == "local":
        return Local(material.groups, ROUND_TO, cost)
    if scope == "global":
        return Global(material.groups, comparable(material.scores, "l2"), ROUND_TO, cost)
    harms = {
        name: {kept: (1 - kept / width) * len(name) for kept in range(ROUND_TO, width + 1, ROUND_TO)}
        for name, width in material.whole.items()
    }
    return Adaptive(cost, harms)


@pytest.mark.parametrize("scope", ["local", "global", "adaptive"])
@pytest.mark.parametrize("quantity", ["macs", "parameters"])
def test_a_target_is_reached_as_closely_as_the_widths_allow(material, scope, quantity):
    """One step less of the share that goes, and the network would cost too much."""
    cost = material.costs()[quantity]
    budget = 0.5 * cost(material.whole)
    found = family(material, scope, cost).within(budget)
    assert all(width % ROUND_TO == 0 for width in found.values())
    assert cost(found) <= budget
    wider = [
        {**found, name: width + ROUND_TO} for name, width in found.items() if width < material.whole[name]
    ]
    if scope == "adaptive":
        assert all(cost(widths) > budget for widths in wider)
    else:
        together = {name: min(width + ROUND_TO, material.whole[name]) for name, width in found.items()}
        assert cost(together) > budget


def test_the_predicted_costs_are_those_of_the_cut_network(material):
    widths = family(material, "global", material.costs()["macs"]).widths(0.4)
    measured = module_complexity(material.candidate(widths), SIZE)
    costs = material.costs()
    assert (costs["macs"](widths), costs["parameters"](widths)) == (measured.macs, measured.parameters)


def test_candidates_leave_the_network_as_it_is(material):
    before = module_complexity(material.module, SIZE)
    material.candidate(family(material, "local", material.costs()["macs"]).widths(0.5))
    assert module_complexity(material.module, SIZE) == before


@pytest.mark.parametrize("scope", ["local", "global", "adaptive"])
def test_more_share_is_a_narrower_network(material, scope):
    cost = material.costs()["macs"]
    members = family(material, scope, cost)
    costs = [cost(members.widths(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == cost(material.whole)


@pytest.mark.parametrize("scope", ["local", "global", "adaptive"])
def test_impossible_budgets_are_refused(material, scope):
    with pytest.raises(RcompressError, match="the narrowest network"):
        family(material, scope, material.costs()["macs"]).within(10)


def test_harms_are_measured_anew_on_the_way_down():
    """By the whole network's curves group a is the one to cut; cut to half, it turns out that b should go on."""
    seen = []

    def measure(widths):
        seen.append(widths)
        harms = {"a": 10.0, "b": 0.1}
        return {
            name: {kept: harms[name] * (width - kept) for kept in range(1, width + 1)}
            for name, width in widths.items()
        }

    first = {"a": {kept: 0.1 * (100 - kept) for kept in range(1, 101)}}
    first["b"] = {kept: 1.0 * (100 - kept) for kept in range(1, 101)}
    adaptive = Adaptive(lambda widths: widths["a"] + widths["b"], first, measure)
    assert adaptive.within(180) == {"a": 80, "b": 100}
    assert not seen, "a small cut needs no second look"
    found = adaptive.within(150)
    assert seen[0] == {"a": 70, "b": 100}
    assert found == {"a": 70, "b": 80}
    assert adaptive.within(150) == found
    assert len(seen) == 1, "equal stages are measured once"


def test_a_crossing_is_found_from_below_and_asks_once_for_equal_members():
    asked = []

    def crossed(share):
        asked.append(share)
        return share >= 0.42

    low, high = crossing(crossed, lambda share: {"a": int(100 * share)}, 0.01, 0.15)
    assert low < 0.42 <= high <= low + 0.01
    assert asked[:3] == pytest.approx([0.15, 0.3, 0.45])
    assert len({int(100 * share) for share in asked}) == len(asked)
    assert crossing(lambda share: False, lambda share: {"a": int(100 * share)}, 0.01, 0.3) == (1.0, None)


def test_a_group_that_can_lose_no_more_stays_as_narrow_as_it_is():
    graph = find_groups(small(10).eval(), SIZE)
    digits = open_dataset("digits")
    spec = ModelSpec(10, digits.preprocessing(), ARCH)
    material = Material(graph, spec, score_channels(graph, "l2"), 10_000)
    adapted = measured_adaptation(material, digits, Settings(torch.device("cpu")), 1)
    assert adapted.measure is not None
    harms = adapted.measure({"conv1": 1, "conv2": 16})
    assert harms["conv1"] == {1: 0.0}
    assert sorted(harms["conv2"]) == list(range(2, 17))
