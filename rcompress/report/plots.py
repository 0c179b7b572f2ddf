"""The report's plots: which there are, what each compares, and why one is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import altair as alt

from rcompress.report.charts import BAR_STEP, HEIGHT, Spec, bars, page_spec, picture, scatter
from rcompress.report.frame import Row
from rcompress.report.points import (
    ACCURACY,
    LATENCY,
    PARAMETERS,
    SCORED,
    SIZE,
    THROUGHPUT,
    Measure,
    comparable,
    drawable,
)
from rcompress.report.score import SCORE
from rcompress.report.text import in_words

FRONT = "Filled, dashed line: Pareto front, nothing is better in both."
INTERVAL = "Thin lines: 95 % interval."
WHISKER = "Thin lines: to the 90th percentile."
SEPARATE = "Times of several runs of rcompress bench, not taken in turns: small differences mean nothing."


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        name: the ending of its file's name (``accuracy-size``).
        title: what stands over it.
        subtitle: the conditions it compares under, and how to read it.
        chart: the chart, without size or title.
        height: of the plotting area in pixels.
        legend: label and colour, where they are not the backends', of which the page has one for all plots.
    """

    name: str
    title: str
    subtitle: list[str]
    chart: alt.LayerChart
    height: int = HEIGHT
    legend: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def png(self) -> bytes:
        """On white, with the title."""
        return picture(self.chart, self.title, self.subtitle, self.height)

    @property
    def spec(self) -> Spec:
        """For the page, which has the title in its own words."""
        return page_spec(self.chart, self.height)


def plots_of(rows: Sequence[Row]) -> tuple[list[Plot], list[str]]:
    """Every plot that the rows allow, and a sentence for each that they do not.

    Latency is compared at the smallest batch size measured for most artifacts, throughput at the largest.
    """
    plots: list[Plot] = []
    missing: list[str] = []
    for name, title, x, y, prefer in SCATTERS:
        if x is SCORED and not any(SCORE in row for row in rows):
            continue  # nobody asked
        points, conditions = comparable(rows, (y, x), prefer)
        if points:
            reading = FRONT + (f" {INTERVAL}" if any(point.get(f"{y.key}_low") for point in points) else "")
            subtitle = [in_words(conditions), reading, *_separate(points, (x, y))]
            plots.append(Plot(name, title, subtitle, scatter(points, x, y)))
        else:
            missing.append(_missing(title, rows, (y, x)))
    points, conditions = comparable(rows, (LATENCY,), smallest)
    if points:
        whiskers = [WHISKER] if any(point.get("latency_p90_ms") for point in points) else []
        chart = bars(points, LATENCY, "latency_p90_ms")
        subtitle = [in_words(conditions), *whiskers, *_separate(points, (LATENCY,))]
        plots.append(Plot("latency", "Latency", subtitle, chart, BAR_STEP * len(points)))
    else:
        missing.append(_missing("Latency", rows, (LATENCY,)))
    return plots, missing


def smallest(batch_size: int) -> int:
    """Prefers small batches."""
    return -batch_size


def largest(batch_size: int) -> int:
    """Prefers large batches."""
    return batch_size


SCATTERS: tuple[tuple[str, str, Measure, Measure, Callable[[int], int]], ...] = (
    ("accuracy-size", "Accuracy over size", SIZE, ACCURACY, smallest),
    ("accuracy-latency", "Accuracy over latency", LATENCY, ACCURACY, smallest),
    ("accuracy-parameters", "Accuracy over parameters", PARAMETERS, ACCURACY, smallest),
    ("accuracy-score", "Accuracy over MicroNet score", SCORED, ACCURACY, smallest),
    ("throughput-size", "Throughput over size", SIZE, THROUGHPUT, largest),
)


def _separate(points: Sequence[Row], measures: Sequence[Measure]) -> list[str]:
    """Said where times stand beside each other that the table makes no ratio of."""
    timed = any(measure in (LATENCY, THROUGHPUT) for measure in measures)
    return [SEPARATE] if timed and len({point["bench_run"] for point in points}) > 1 else []


def _missing(title: str, rows: Sequence[Row], measures: Sequence[Measure]) -> str:
    """Which figure no record has, or that no artifact has them together."""
    absent = [measure for measure in measures if not any(drawable(row, measure) for row in rows)]
    if not absent:
        return f"No plot “{title}”: no artifact has both figures in one backend."
    figures = " and ".join(measure.label for measure in absent)
    commands = " and ".join(dict.fromkeys(measure.needs for measure in absent))
    return f"No plot “{title}”: the records hold no {figures}; {commands} would measure it."
