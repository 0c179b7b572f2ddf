"""A recommendation from measurements: fast where it counts, no less accurate, and said with its doubt."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rcompress.engines.base import Precision
from rcompress.measure.accuracy import Scores
from rcompress.measure.latency import Latency
from rcompress.measure.paired import Paired, paired


@dataclass(frozen=True, eq=False)
class Answers:
    """How a contender scored, and which images it got right: bool (N,), the same N for all contenders."""

    scores: Scores
    correct: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Contender:
    """One precision of a network, measured; ``answers`` is None where accuracy was not."""

    precision: Precision
    executed: dict[str, int]
    size_bytes: int
    latency: Latency
    answers: Answers | None

    @property
    def name(self) -> str:
        """As people write it."""
        return self.precision.upper()

    def to_dict(self, batch: int) -> dict[str, Any]:
        """Primitives, in the records' vocabulary."""
        figures = {
            "precision": self.precision,
            "executed_layers": self.executed,
            "size_bytes": self.size_bytes,
            **self.latency.metrics(batch),
        }
        return figures | (self.answers.scores.metrics() if self.answers else {})


@dataclass(frozen=True)
class Decision:
    """Which precision to ship, and the sentences that say why."""

    ship: Precision
    said: tuple[str, ...]


def weigh(contenders: Sequence[Contender], circumstances: tuple[str, str]) -> Decision:
    """Choose among contenders that were timed in one interleaved run and answered the same images.

    Those whose accuracy is a loss against FP32 (the whole 95 % interval of the paired difference lies below
    zero) are out; of the rest the fastest is taken, and of several that are equally fast (their ratio is not on
    one side of 1 in every trial) the smallest file.

    Args:
        contenders: INT8 and FP32, and others.
        circumstances: what the speeds and the accuracies were measured under, in words.
    """
    by_name = {contender.precision: contender for contender in contenders}
    reference, quantized = by_name["fp32"], by_name["int8"]
    sound = [each for each in contenders if not _difference(each, reference).is_loss]
    fastest = min(sound, key=lambda each: each.latency.p50_ms)
    ship = min((each for each in sound if not _slower(each, fastest)), key=lambda each: each.size_bytes)
    others = [each for each in contenders if each not in (ship, quantized)]
    speeds = [f"INT8 is {_speed(quantized, each)}" for each in (others if ship is quantized else [ship])]
    if ship is not quantized:
        speeds += [f"{ship.name} is {_speed(ship, each)}" for each in others]
    size = f"the INT8 file is {quantized.size_bytes / reference.size_bytes:.2f} times FP32's size"
    judged = quantized if ship is reference else ship
    accuracy = [_accuracy(each, reference, circumstances[1]) for each in dict.fromkeys((quantized, judged))]
    said = (f"ship {ship.name}", f"{', '.join(speeds)} ({circumstances[0]}); {size}", *accuracy)
    return Decision(ship.precision, said)


def _difference(contender: Contender, reference: Contender) -> Paired:
    """Without answers nothing is known to be lost."""
    if contender.answers is None or reference.answers is None:
        return Paired(1, 0, 0)
    return paired(contender.answers.correct, reference.answers.correct)


def _slower(contender: Contender, fastest: Contender) -> bool:
    return contender is not fastest and max(contender.latency.speedups_over(fastest.latency)) < 1


def _speed(contender: Contender, other: Contender) -> str:
    """``2.31x (2.28-2.35) as fast as FP32``, with the range over the trials."""
    ratios = contender.latency.speedups_over(other.latency)
    low, high = min(ratios), max(ratios)
    shown = f"{statistics.median(ratios):.2f}x ({low:.2f}-{high:.2f})"
    if low > 1:
        return f"{shown} as fast as {other.name}"
    if high < 1:
        return f"slower than {other.name}, {shown} as fast"
    return f"no faster and no slower than {other.name} within the spread, {shown}"


def _accuracy(contender: Contender, reference: Contender, data: str) -> str:
    if contender.answers is None or reference.answers is None:
        return data
    difference = _difference(contender, reference)
    low, high = difference.interval_percent
    meaning = (
        "a loss" if difference.is_loss else "a gain" if difference.is_gain else "no difference that shows"
    )
    return (
        f"top-1 of {contender.name} {contender.answers.scores.top1_percent:.2f} %, of {reference.name} "
        f"{reference.answers.scores.top1_percent:.2f} % on the same {data}: "
        f"{difference.difference_percent:+.2f} points ({low:+.2f} to {high:+.2f}, 95 %), {meaning}"
    )
