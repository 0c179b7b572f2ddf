"""Two networks on the same images."""

from __future__ import annotations

import numpy as np
import pytest

from rcompress.measure.paired import Paired, paired


def test_lost_and_gained_are_told_apart():
    reference = np.array([True, True, True, False, False, True])
    correct = np.array([True, False, False, True, False, True])
    found = paired(correct, reference)
    assert (found.images, found.lost, found.gained) == (6, 2, 1)
    assert found.difference_percent == pytest.approx(-100 / 6)
    assert found.metrics()["top1_difference_points"] == found.difference_percent


def test_the_interval_is_that_of_bonett_and_price():
    """Their formula by hand: 20 lost and 8 gained of 1,000."""
    low, high = Paired(1000, 20, 8).interval_percent
    gained, lost = 9 / 1002, 21 / 1002
    half = 1.959963984540054 * ((gained + lost - (gained - lost) ** 2) / 1002) ** 0.5
    assert (low, high) == pytest.approx((100 * (gained - lost - half), 100 * (gained - lost + half)))


def test_the_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    kinds = random.multinomial(500, [0.90, 0.07, 0.03], size=2000)
    covered = [low <= -4.0 <= high for low, high in (Paired(500, a, b).interval_percent for _, a, b in kinds)]
    assert 0.93 < np.mean(covered) < 0.98


@pytest.mark.parametrize(
    ("lost", "gained", "loss", "gain"),
    [(0, 0, False, False), (6, 3, False, False), (40, 10, True, False), (10, 40, False, True)],
)
def test_a_loss_is_one_only_beyond_the_interval(lost, gained, loss, gain):
    found = Paired(1000, lost, gained)
    assert (found.is_loss, found.is_gain) == (loss, gain)
