"""What is recommended when INT8 is faster, slower, no faster, or less accurate."""

from __future__ import annotations

import numpy as np
import pytest

from rcompress.measure.accuracy import Tally
from rcompress.measure.latency import Latency
from rcompress.search.weighing import Answers, Contender, weigh

LABELS = np.arange(1000) % 10
WHERE = ("batch 1, 1 thread, openvino on cpu", "1,000 images of digits validation")


def answers(wrong: int) -> Answers:
    """Of a network that misses the first ``wrong`` images and 50 others."""
    logits = np.eye(10, dtype=np.float32)[LABELS]
    missed = [*range(wrong), *range(900, 950)]
    logits[missed] = np.roll(logits[missed], 1, axis=1)
    tally = Tally()
    tally.add(logits, LABELS)
    return Answers(tally.scores(), logits.argmax(1) == LABELS)


def contender(precision, medians, size=100, wrong=0) -> Contender:
    trials = tuple((0.99 * ms, ms, 1.01 * ms) for ms in medians)
    return Contender(precision, {}, size, Latency(precision, trials, (1.0,) * len(trials)), answers(wrong))


def fp32(*medians, **kwargs) -> Contender:
    return contender("fp32", medians or (4.0, 4.1, 4.0), 400, **kwargs)


def test_int8_is_shipped_where_it_is_faster_and_loses_nothing():
    decision = weigh(
        [fp32(), contender("bf16", (3.0, 3.1, 3.0), 400), contender("int8", (2.0, 2.0, 2.0))], WHERE
    )
    assert decision.ship == "int8"
    assert decision.said[0] == "ship INT8"
    assert (
        "INT8 is 2.00x (2.00-2.05) as fast as FP32, INT8 is 1.50x (1.50-1.55) as fast as BF16"
        in decision.said[1]
    )
    assert "(batch 1, 1 thread, openvino on cpu); the INT8 file is 0.25 times FP32's size" in decision.said[1]
    assert "+0.00 points" in decision.said[2] and "no difference that shows" in decision.said[2]


def test_slower_int8_is_not_shipped_and_that_is_said():
    decision = weigh([fp32(), contender("int8", (8.0, 8.0, 8.0))], WHERE)
    assert decision.ship == "fp32"
    assert decision.said[0] == "ship FP32"
    assert "INT8 is slower than FP32, 0.50x (0.50-0.51) as fast" in decision.said[1]


@pytest.mark.parametrize(("size", "ship"), [(100, "int8"), (500, "fp32")])
def test_equal_speed_is_no_difference_and_the_smaller_file_is_taken(size, ship):
    decision = weigh([fp32(4.0, 4.0, 4.0), contender("int8", (3.9, 4.1, 3.95), size)], WHERE)
    assert decision.ship == ship
    assert "INT8 is no faster and no slower than FP32 within the spread" in decision.said[1]


def test_accuracy_beyond_the_interval_costs_int8_the_place():
    contenders = [
        fp32(),
        contender("bf16", (3.0, 3.0, 3.0), 400),
        contender("int8", (2.0, 2.0, 2.0), wrong=40),
    ]
    decision = weigh(contenders, WHERE)
    assert decision.ship == "bf16"
    assert (
        "INT8 is 1.50x (1.50-1.50) as fast as BF16, BF16 is 1.33x (1.33-1.37) as fast as FP32"
        in decision.said[1]
    )
    assert "top-1 of INT8 91.00 %, of FP32 95.00 %" in decision.said[2] and "a loss" in decision.said[2]
    assert "-4.00 points" in decision.said[2]
    assert "top-1 of BF16 95.00 %" in decision.said[3]


def test_a_difference_within_the_interval_does_not_decide():
    decision = weigh([fp32(), contender("int8", (2.0, 2.0, 2.0), wrong=2)], WHERE)
    assert decision.ship == "int8" and "-0.20 points" in decision.said[2]
    assert "no difference that shows" in decision.said[2]


def test_without_images_speed_and_size_decide_and_it_is_said():
    blind = [
        Contender(c.precision, {}, c.size_bytes, c.latency, None)
        for c in (fp32(), contender("int8", (2.0,) * 3))
    ]
    decision = weigh(blind, (WHERE[0], "accuracy was not measured"))
    assert decision.ship == "int8" and decision.said[2] == "accuracy was not measured"
