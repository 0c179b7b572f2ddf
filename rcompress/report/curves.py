"""Vega charts of lines: several series over one axis, told apart by a legend of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import altair as alt

from rcompress.report.charts import layered
from rcompress.report.frame import Row

PALETTE = ("#2f80ed", "#e4572e", "#0f9d8a", "#b46bd6", "#c98a00", "#7b8794", "#5a9e1f", "#d6336c")
SERIES_MOST = len(PALETTE)
DOTS_MOST = 40
SHORT_LABEL = 40


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        label: its name in the legend.
        points: mappings with ``x``, ``y``, and whatever else a hover shows, in the order of x.
        dashed: drawn so, in the colour of the series of the same label that is not.
    """

    label: str
    points: Sequence[Row]
    dashed: bool = False


def curves(series: Sequence[Series], x_title: str, y_title: str, from_zero: bool = False) -> alt.LayerChart:
    """Lines with their points; intervals where points have ``low`` and ``high``.

    Raises:
        ValueError: there are more labels than colours (`SERIES_MOST`).
    """
    labels = list(dict.fromkeys(line.label for line in series))
    if len(labels) > SERIES_MOST:
        raise ValueError(f"{len(labels)} series, at most {SERIES_MOST}")
    points = [
        {**point, "series": line.label, "dashed": line.dashed, "line": number}
        for number, line in enumerate(series)
        for point in line.points
    ]
    colour = alt.Color("series:N").scale(domain=labels, range=list(series_colours(labels).values()))
    legend = alt.Legend(columns=legend_columns(labels), labelLimit=0, symbolType="circle", symbolOpacity=1)
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=x_title, scale=alt.Scale(zero=from_zero, nice=False, padding=8)).axis(
            grid=False
        ),
        y=alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False)),
        color=colour.legend(legend),
        detail="line:N",
    )
    dash = alt.when("datum.dashed").then(alt.value([5, 4])).otherwise(alt.value([1, 0]))
    layers = [base.mark_line(strokeWidth=1.8).encode(strokeDash=dash).properties(name="lines")]
    if any("low" in point for point in points):
        layers.append(base.mark_rule(opacity=0.6).encode(y="low:Q", y2="high:Q").properties(name="intervals"))
    if max(len(line.points) for line in series) <= DOTS_MOST:  # more hide the line
        layers += _dots(base.encode(tooltip=_tooltip(points)), any(line.dashed for line in series))
    return layered(points, layers)


def _dots(base: alt.Chart, dashed: bool) -> list[alt.Chart]:
    """Full on a line, hollow on a dashed one."""
    full = base.transform_filter("!datum.dashed").mark_point(filled=True, size=50, opacity=1)
    hollow = base.transform_filter("datum.dashed").mark_point(size=50, opacity=1)
    return [full.properties(name="dots"), *([hollow.properties(name="hollow")] if dashed else [])]


def series_colours(labels: Iterable[str]) -> dict[str, str]:
    """By label, its colour; of more labels than there are colours, the first."""
    return dict(zip(dict.fromkeys(labels), PALETTE, strict=False))


def legend_columns(labels: Sequence[str]) -> int:
    """Of a picture; a page has its legend in its own words."""
    return 2 if max(map(len, labels)) <= SHORT_LABEL else 1


def _tooltip(points: Sequence[Row]) -> list[alt.Tooltip]:
    hidden = ("x", "y", "low", "high", "dashed", "line")
    return [alt.Tooltip(field=name, type="nominal", title=name) for name in points[0] if name not in hidden]
