"""Vega charts: points with their Pareto front, and bars; one specification for the page, one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import altair as alt
import vl_convert
from PIL import Image

from rcompress.report.axes import Axis, axis_for
from rcompress.report.frame import Row
from rcompress.report.labels import placed
from rcompress.report.lineage import commands_of
from rcompress.report.points import Measure, on_front
from rcompress.report.text import significant

Spec = dict[str, Any]
PICTURE_WIDTH, HEIGHT, SCALE = 640, 360, 2
BAR_STEP, BAR_HEIGHT = 28, 16
FONT = "Liberation Sans, Helvetica Neue, Arial, sans-serif"
COLOURS = {
    "torch": "#e4572e",
    "torch-x86": "#f2a03d",
    "onnxruntime": "#2f80ed",
    "openvino": "#8e5bd9",
    "tensorrt": "#5a9e1f",
    "tensorrt-rtx": "#0f9d8a",
}
OTHER_COLOUR = "#7b8794"
ROOM_FOR_FIGURES = 1.15
"""How far an axis of bars goes beyond them: on a phone the figure at the longest one is a sixth of it."""
LONGEST = 27
BOTH_ENDS = (
    f"length(datum.label) > {LONGEST} ? slice(datum.label, 0, 12) + '\u2026' + slice(datum.label, -14) "
    ": datum.label"
)
"""A long name by its beginning and its end: siblings differ there."""
NEAR = ("right", "left", "top-right", "bottom-right", "top-left", "bottom-left", "top", "bottom")
ANCHORS = [(anchor, 4) for anchor in NEAR] + [(anchor, 16) for anchor in NEAR]


def scatter(rows: Sequence[Row], x: Measure, y: Measure) -> alt.LayerChart:
    """Points labelled with the artifact, the Pareto front filled and joined by a dashed staircase."""
    fronts, names = on_front(rows, x, y), _unique_names(rows)
    points = [_point(*point, x, y) for point in zip(rows, names, fronts, strict=True)]
    across = axis_for(x, [point["x"] for point in points])
    up = axis_for(y, [point[key] for point in points for key in ("y", "low", "high") if key in point])
    _label(points, across, up)
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=x.label, scale=across.scale).axis(grid=False),
        y=alt.Y("y:Q", title=y.label, scale=up.scale),
    )
    front = base.transform_filter("datum.front").mark_line(interpolate="step-after", strokeDash=[5, 4])
    interval = base.mark_rule().encode(
        y="low:Q", y2="high:Q", stroke=alt.Stroke("backend:N").scale(_backends(points))
    )
    layers = [
        front.encode(color=alt.value(OTHER_COLOUR)).properties(name="front"),
        *([interval.properties(name="intervals")] if any("low" in point for point in points) else []),
        _dots(base, points).properties(name="dots"),
        _names(base).properties(name="names"),
    ]
    return layered(points, layers)


def bars(rows: Sequence[Row], measure: Measure, until: str) -> alt.LayerChart:
    """One bar per row in the rows' order; a thin line goes on to the column ``until`` where there is one.

    On a logarithmic axis, where a bar has no beginning, a dot at its end.
    """
    points = [_bar(*point, measure, until) for point in zip(rows, _unique_names(rows), strict=True)]
    names = alt.Y("name:N", title=None, sort=[point["name"] for point in points])
    across = axis_for(measure, [point[key] for point in points for key in ("x", "until")])
    across = replace(across, high=ROOM_FOR_FIGURES * across.high)
    base = alt.Chart().encode(
        y=names.axis(labelExpr=BOTH_ENDS, labelLimit=180, ticks=False, domain=False),
        x=alt.X("x:Q", title=measure.label, scale=across.scale),
    )
    bar = (
        base.mark_point(size=90, strokeWidth=0, opacity=1)
        if across.logarithmic
        else base.mark_bar(height=BAR_HEIGHT, cornerRadiusEnd=2)
    )
    layers = [
        bar.encode(fill=alt.Fill("backend:N").scale(_backends(points)), tooltip=_tooltip(points)),
        base.mark_rule(color=OTHER_COLOUR, strokeWidth=1.5).encode(x="x:Q", x2="until:Q"),
        base.mark_text(align="left", dx=5).encode(x="until:Q", text="shown:N"),
    ]
    return layered(points, layers)


def backend_colours(rows: Sequence[Row]) -> dict[str, str]:
    """A backend has the same colour in every chart; unknown ones share grey."""
    present = list(dict.fromkeys(row["backend"] or "unknown" for row in rows))
    names = [name for name in COLOURS if name in present] + [name for name in present if name not in COLOURS]
    return {name: COLOURS.get(name, OTHER_COLOUR) for name in names}


def page_spec(chart: alt.LayerChart, height: int = HEIGHT) -> Spec:
    """The Vega specification for a page: as wide as its element, names placed by the browser, no legend.

    There the width is not known in advance, so the names are handed to Vega's label transform (Vega-Lite has
    no word for it), which moves them apart and hides those that find no room.
    """
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    sized = chart.properties(width="container", height=height, background="transparent", autosize=fit)
    spec: Spec = vl_convert.vegalite_to_vega(_styled(sized).to_dict())
    spec.pop("legends", None)
    for mark in spec["marks"]:
        if mark.get("name") == "names_marks":
            _place_in_browser(mark)
    return spec


def picture(chart: alt.LayerChart, title: str, subtitle: Sequence[str], height: int = HEIGHT) -> bytes:
    """The chart as a PNG on white, with its title and what it compares."""
    heading = alt.TitleParams(title, subtitle=list(subtitle), anchor="start", frame="bounds", offset=14)
    sized = chart.properties(
        width=PICTURE_WIDTH, height=height, background="white", padding=14, title=heading
    )
    return png_of(_styled(sized))


def png_of(chart: alt.LayerChart | alt.VConcatChart) -> bytes:
    """The chart as a PNG, twice its size in pixels, well compressed (a third of what vl-convert writes)."""
    content = io.BytesIO()
    png = vl_convert.vegalite_to_png(chart.to_dict(), scale=SCALE)
    Image.open(io.BytesIO(png)).convert("RGB").save(content, "PNG", optimize=True)
    return content.getvalue()


def _styled(chart: alt.LayerChart) -> alt.LayerChart:
    styled: alt.LayerChart = (
        chart.configure(font=FONT)
        .configure_axis(
            labelFontSize=12,
            titleFontSize=12.5,
            titleFontWeight=500,
            titlePadding=8,
            gridColor="#e3e7eb",
            domainColor="#aab4be",
            tickColor="#aab4be",
            labelOverlap=True,
            labelSeparation=6,
        )
        .configure_view(stroke=None)
        .configure_legend(orient="top", title=None, labelFontSize=12, symbolStrokeWidth=0, offset=10)
        .configure_text(fontSize=11.5, color="#3b4650")
        .configure_title(fontSize=17, subtitleFontSize=12.5, subtitlePadding=5, subtitleColor="#5b6670")
    )
    return styled


def layered(points: Sequence[Row], layers: Sequence[alt.Chart]) -> alt.LayerChart:
    """``layers`` over each other, all drawing from ``points``."""
    chart = alt.layer(*layers, data=alt.InlineData(points))
    assert isinstance(chart, alt.LayerChart)  # a FacetChart only where a layer is faceted
    return chart


def _dots(base: alt.Chart, points: Sequence[Row]) -> alt.Chart:
    front = alt.when("datum.front").then(alt.value(1)).otherwise(alt.value(0.15))
    dots: alt.Chart = base.mark_point(size=90, strokeWidth=1.6, opacity=1).encode(
        stroke=alt.Stroke("backend:N").scale(_backends(points)),
        fill=alt.Fill("backend:N").scale(_backends(points)),
        fillOpacity=front,
        tooltip=_tooltip(points),
    )
    return dots


def _names(base: alt.Chart) -> alt.Chart:
    align, baseline, dx, dy = (alt.ExprRef(f"datum.{key}") for key in ("align", "baseline", "dx", "dy"))
    text = base.mark_text(tooltip=None, align=align, baseline=baseline, dx=dx, dy=dy)
    names: alt.Chart = text.encode(text="label:N")
    return names


def _place_in_browser(names: Spec) -> None:
    names["from"] = {"data": "dots_marks"}
    names["encode"] = {"enter": {"text": {"field": "datum.name"}, "fontSize": {"value": 11.5}}}
    names["interactive"] = False
    label = {
        "type": "label",
        "size": {"signal": "[max(width, 1), max(height, 1)]"},  # the width is 0 before the page is laid out
        "anchor": [anchor for anchor, _ in ANCHORS],
        "offset": [offset for _, offset in ANCHORS],
        "avoidMarks": ["front_marks"],
    }
    names["transform"] = [label]


def _point(row: Row, name: str, front: bool, x: Measure, y: Measure) -> Row:
    point = {"x": row[x.key] / x.unit, "y": row[y.key] / y.unit, "front": front, **_named(row, name, x, y)}
    low, high = row.get(f"{y.key}_low"), row.get(f"{y.key}_high")
    if low is not None and high is not None:
        point |= {"low": low / y.unit, "high": high / y.unit}
    return point


def _label(points: Sequence[Row], across: Axis, up: Axis) -> None:
    """Give every point its name's place in a picture; a name without room is left out there."""

    def pixel(x: float, y: float) -> tuple[float, float]:
        return across.share(x) * PICTURE_WIDTH, (1 - up.share(y)) * HEIGHT

    pixels = [pixel(point["x"], point["y"]) for point in points]
    intervals = [(*pixel(p["x"], p["high"]), *pixel(p["x"], p["low"])) for p in points if "low" in p]
    front = sorted(place for place, point in zip(pixels, points, strict=True) if point["front"])
    lines = [*intervals, *_staircase(front)]
    names = _shortened([point["name"] for point in points])
    places = placed(pixels, names, (PICTURE_WIDTH, HEIGHT), lines)
    for point, name, place in zip(points, names, places, strict=True):
        point |= {"label": ""} if place is None else {"label": name, **vars(place)}


def _shortened(names: Sequence[str]) -> Sequence[str]:
    """As `BOTH_ENDS` does, unless two of the names would become one."""
    short = [name if len(name) <= LONGEST else f"{name[:12]}\u2026{name[-14:]}" for name in names]
    return short if len(set(short)) == len(set(names)) else names


def _staircase(front: Sequence[tuple[float, float]]) -> list[tuple[float, float, float, float]]:
    """The lines between neighbours: first across, then up, as ``step-after`` draws them."""
    boxes = []
    for (x, y), (next_x, next_y) in pairwise(front):
        boxes += [(x, y, next_x, y), (next_x, min(y, next_y), next_x, max(y, next_y))]
    return boxes


def _bar(row: Row, name: str, measure: Measure, until: str) -> Row:
    value, end = row[measure.key] / measure.unit, (row.get(until) or row[measure.key]) / measure.unit
    named = _named(row, name, measure)
    return {"x": value, "until": end, "shown": named[measure.label], **named}


def _unique_names(rows: Sequence[Row]) -> list[str]:
    """The artifacts' names, with the backend where one artifact ran in several."""
    names = [row["artifact"] for row in rows]
    return [
        f"{name} ({row['backend']})" if names.count(name) > 1 else name
        for row, name in zip(rows, names, strict=True)
    ]


def _named(row: Row, name: str, *measures: Measure) -> Row:
    figures = {
        measure.label: significant(row[measure.key] / measure.unit, measure.digits) for measure in measures
    }
    backend = row["backend"] or "unknown"
    made = {"made by": commands_of(row["lineage"])} if row["lineage"] else {}
    return {"name": name, "artifact": row["artifact"], "backend": backend, **figures, **made}


def _tooltip(points: Sequence[Row]) -> list[alt.Tooltip]:
    hidden = {
        "x",
        "y",
        "low",
        "high",
        "front",
        "name",
        "label",
        "shown",
        "until",
        "align",
        "baseline",
        "dx",
        "dy",
    }
    shown = dict.fromkeys(name for point in points for name in point if name not in hidden)
    return [alt.Tooltip(field=name, type="nominal", title=name) for name in shown]


def _backends(points: Sequence[Row]) -> alt.Scale:
    colours = backend_colours(points)
    return alt.Scale(domain=list(colours), range=list(colours.values()))
