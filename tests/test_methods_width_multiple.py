"""Which multiple an engine runs fastest: the rule, and one real measurement."""

from __future__ import annotations

import pytest

from rcompress.methods.width_multiple import OFFSETS, choose_multiple, fastest_multiple


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


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_measured_in_an_engine(backend):
    measured = fastest_multiple([16, 64], backend, threads=1, trials=1)
    assert measured.multiple in (*OFFSETS, 32)
    assert measured.base == 32
    assert set(measured.cost) == set(OFFSETS)
    assert all(0.1 < cost < 10 for cost in measured.cost.values())
    assert f"multiples of {measured.multiple}: time per MAC in {backend}" in str(measured)
