"""Which multiple an engine runs fastest: the rule, and one real measurement."""

from __future__ import annotations

import pytest

from rcompress.methods.width_multiple import OFFSETS, _cost, choose_multiple, fastest_multiple


@pytest.mark.parametrize(
    ("cost", "multiple"),
    [
        ({1: 1.3, 4: 1.2, 8: 1.2, 16: 1.01}, 16),
        ({1: 1.3, 4: 1.2, 8: 1.04, 16: 1.01}, 8),
        ({1: 1.0, 4: 1.0, 8: 1.0, 16: 0.97}, 1),
        ({1: 1.0, 4: 1.0, 8: 1.2, 16: 1.0}, 16),
        ({1: 1.5, 4: 1.4, 8: 1.2, 16: 1.1}, 32),
    ],
    ids=["16", "8", "any", "no finer one past a slow one", "32"],
)
def test_the_finest_multiple_that_costs_little(cost, multiple):
    assert choose_multiple(cost) == multiple


def test_a_width_costs_against_the_line_between_its_neighbours():
    assert _cost({32: 2.0, 64: 1.0, 40: 1.75}, 32, 40) == pytest.approx(1.0)
    assert _cost({32: 2.0, 64: 1.0, 48: 3.0}, 32, 48) == pytest.approx(2.0)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_measured_in_an_engine(backend):
    measured = fastest_multiple([16, 64], backend, threads=1, trials=1)
    assert measured.multiple in (*OFFSETS, 32)
    assert measured.base == 32
    assert set(measured.cost) == set(OFFSETS)
    assert all(0.1 < cost < 10 for cost in measured.cost.values())
    assert f"multiples of {measured.multiple}: time per MAC in {backend}" in str(measured)
