"""Accuracy over how much of a network was taken away: one line per method."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from rcompress.report.ancestry import Descent, descent
from rcompress.report.build import Report
from rcompress.report.curves import SERIES_MOST, Series, curves, series_colours
from rcompress.report.frame import ACCURACY_KEYS, Row
from rcompress.report.plots import Plot
from rcompress.report.text import in_words, significant

AXES = (
    ("accuracy-macs-removed", "Accuracy over pruning", "macs", "macs", "MACs removed (%)"),
    (
        "accuracy-weights-removed",
        "Accuracy over weights removed",
        "nonzero_parameters",
        "parameters",
        "weights removed or zero (%)",
    ),
)
READING = "Each line is one method at growing strength, from the network it was applied to."


class _Point(NamedTuple):
    removed: float
    row: Row
    descent: Descent


def removal_plots(report: Report) -> list[Plot]:
    """Accuracy over MACs and over weights removed, where a method was measured at two strengths at least.

    The share is of the root's MACs or parameters, so the root must be among the artifacts measured.
    """
    rows = [row for row in report.frame.to_dicts() if row["top1_percent"] is not None]
    plots = []
    for name, title, key, whole, label in AXES:
        conditions, lines = _lines(_points(report, rows, key, whole))
        if lines:
            shown = lines[:SERIES_MOST]
            chart = curves(shown, label, "top-1 accuracy (%)")
            legend = series_colours(line.label for line in shown)
            subtitle = [in_words(conditions), READING, *_left_out(lines)]
            plots.append(Plot(name, title, subtitle, chart, legend=legend))
    return plots


def _left_out(lines: Sequence[Series]) -> list[str]:
    most = f"{SERIES_MOST} of {len(lines)} methods: those measured most often, of these the most accurate."
    return [most] if len(lines) > SERIES_MOST else []


def _points(report: Report, rows: Sequence[Row], key: str, whole: str) -> list[_Point]:
    roots = {row["sha256"]: row[whole] for row in report.frame.to_dicts()}
    points = {}
    for row in rows:
        origin = descent(row["sha256"], report.histories.get(row["sha256"], []))
        total = roots.get(origin.root)
        if total and row[key] is not None:
            place = (row["sha256"], row["backend"], *(row[name] for name in ACCURACY_KEYS))
            points[place] = _Point(100 * (1 - row[key] / total), row, origin)
    return list(points.values())


def _lines(points: Sequence[_Point]) -> tuple[Row, list[Series]]:
    """The conditions with the most lines, and those lines, each from the root's own accuracy where it is known."""
    best: tuple[Row, list[Series]] = {}, []
    for conditions in dict.fromkeys(tuple(p.row[key] for key in ACCURACY_KEYS) for p in points):
        like = [p for p in points if tuple(p.row[key] for key in ACCURACY_KEYS) == conditions]
        lines = _series(like)
        if len(lines) > len(best[1]):
            best = dict(zip(ACCURACY_KEYS, conditions, strict=True)), lines
    return best


def _series(points: Sequence[_Point]) -> list[Series]:
    groups: dict[tuple[str, ...], list[_Point]] = {}
    names = {point.row["sha256"]: point.row["artifact"] for point in points}
    for point in points:
        if point.descent.removed_by:
            groups.setdefault(_kind(point, names), []).append(point)
    whole = {_kind(point, names): point for point in points if not point.descent.removed_by}
    found = []
    for kind, group in groups.items():
        start = whole.get((kind[0], "", *kind[2:]))
        line = sorted([*group, *([start] if start else [])], key=lambda point: point.removed)
        if len({round(point.removed, 1) for point in line}) > 1:
            found.append((kind, line))
    found.sort(key=lambda pair: (-len(pair[1]), -fmean(point.row["top1_percent"] for point in pair[1])))
    labels = _labels([kind for kind, _ in found])
    return [
        Series(label, [_drawn(point) for point in line])
        for label, (_, line) in zip(labels, found, strict=True)
    ]


def _kind(point: _Point, names: dict[str, str]) -> tuple[str, ...]:
    """Root, what removed, what else was done, backend: points that agree in all are one line."""
    origin = point.descent
    removed = ", ".join(dict.fromkeys(origin.removed_by))
    root = names.get(origin.root, origin.root[:7])
    return root, removed, ", ".join(origin.otherwise), point.row["backend"] or "unknown"


def _labels(kinds: Sequence[tuple[str, ...]]) -> list[str]:
    """What sets each line apart; what all lines share is left out, unless nothing would remain."""
    differing = [place for place in range(4) if len({kind[place] for kind in kinds}) > 1] or [1]
    return ["; ".join(kind[place] for place in differing if kind[place]) or kind[1] for kind in kinds]


def _drawn(point: _Point) -> Row:
    row = point.row
    drawn = {
        "x": point.removed,
        "y": row["top1_percent"],
        "artifact": row["artifact"],
        "removed (%)": significant(point.removed),
        "top-1 (%)": f"{row['top1_percent']:.2f}",
    }
    low, high = row.get("top1_percent_low"), row.get("top1_percent_high")
    return drawn if low is None or high is None else {**drawn, "low": low, "high": high}
