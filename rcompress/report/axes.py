"""The range an axis spans, linear or logarithmic, known before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from rcompress.report.points import Measure

LOG_FROM = 10


@dataclass(frozen=True)
class Axis:
    """What an axis spans."""

    low: float
    high: float
    logarithmic: bool

    @property
    def scale(self) -> alt.Scale:
        """The same for Vega-Lite."""
        return alt.Scale(
            domain=[self.low, self.high], type="log" if self.logarithmic else "linear", nice=False
        )

    def share(self, value: float) -> float:
        """Where ``value`` lies between the ends, 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis_for(measure: Measure, values: Sequence[float]) -> Axis:
    """A close view for percentages; other figures start at 0, or are logarithmic from 1:10 on."""
    low, high = min(values), max(values)
    if measure.key.endswith("_percent"):
        margin = max((high - low) * 0.12, 0.25)
        return Axis(max(0.0, low - margin), min(100.0 + margin / 2, high + margin), False)
    if high / low >= LOG_FROM:
        return Axis(low / 1.6, high * 1.6, True)
    return Axis(0.0, high * 1.12, False)
