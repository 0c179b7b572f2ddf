"""What the same method costs on several data sets: CIFAR-10 beside CIFAR-100."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import altair as alt

from rcompress.report.ancestry import descent
from rcompress.report.build import Report
from rcompress.report.charts import OTHER_COLOUR, layered
from rcompress.report.curves import SERIES_MOST, series_colours
from rcompress.report.frame import Row
from rcompress.report.plots import Plot
from rcompress.report.text import signed

ROW_STEP, LABEL_ABOVE = 36, 13
SAME_MACS = 0.01
READING = (
    "Points of accuracy gained or lost against the same network before, on the same images.",
    "Networks are the same where their MACs agree within 1 %: only the last layer differs.",
)


def drop_plots(report: Report) -> list[Plot]:
    """One row per method and network that was measured on two data sets at least, one dot per data set."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for change in _changes(report):
        rows.setdefault((change["method"], change["network"]), []).append(change)
    shared = {key: row for key, row in rows.items() if len({change["dataset"] for change in row}) > 1}
    if not shared:
        return []
    several = len({network for _, network in shared}) > 1
    points = [
        {**change, "row": f"{method}, {network}" if several else method}
        for (method, network), row in shared.items()
        for change in row
    ]
    names = list(dict.fromkeys(point["dataset"] for point in points))[:SERIES_MOST]
    labels = list(dict.fromkeys(point["row"] for point in points))
    chart = _dots([point for point in points if point["dataset"] in names], labels, names)
    height = ROW_STEP * len(labels)
    return [
        Plot("drop-datasets", "Same method, other data", list(READING), chart, height, series_colours(names))
    ]


def _changes(report: Report) -> list[Row]:
    """Per artifact, backend and data, its accuracy minus its root's on the same images."""
    rows = {
        (row["sha256"], row["backend"], row["dataset"], row["split"], row["images"]): row
        for row in report.frame.to_dicts()
        if row["top1_percent"] is not None and row["dataset"] is not None
    }
    networks = _networks(row for row in rows.values())
    changes = []
    for (sha256, backend, *images), row in rows.items():
        origin = descent(sha256, report.histories.get(sha256, []))
        roots = [other for key, other in rows.items() if key[0] == origin.root and list(key[2:]) == images]
        if origin.root != sha256 and roots and origin.root in networks:
            change = row["top1_percent"] - _nearest(roots, backend)["top1_percent"]
            changes.append(
                {
                    "method": f"{origin.method or 'as it was'} ({backend or 'unknown'})",
                    "network": networks[origin.root],
                    "dataset": row["dataset"],
                    "artifact": row["artifact"],
                    "x": change,
                    "points": signed(change),
                }
            )
    return changes


def _nearest(roots: Sequence[Row], backend: str | None) -> Row:
    """The root in the same backend, where it ran there."""
    return next((root for root in roots if root["backend"] == backend), roots[0])


def _networks(rows: Iterable[Row]) -> dict[str, str]:
    """By SHA-256, a network's name, which those share whose MACs agree: that of the first of them."""
    names: dict[str, str] = {}
    firsts: dict[str, int] = {}
    for row in rows:
        if not row["macs"]:
            continue
        near = (name for name, macs in firsts.items() if abs(row["macs"] / macs - 1) <= SAME_MACS)
        name = next(near, row["artifact"])
        firsts.setdefault(name, row["macs"])
        names.setdefault(row["sha256"], name)
    return names


def _dots(points: Sequence[Row], labels: Sequence[str], datasets: Sequence[str]) -> alt.LayerChart:
    down = alt.Y("row:N", title=None, sort=list(labels), axis=None)
    across = alt.X("x:Q", title="change of top-1 (points)", scale=alt.Scale(padding=10))
    colours = series_colours(datasets)
    colour = alt.Color("dataset:N").scale(domain=list(colours), range=list(colours.values()))
    base = alt.Chart().encode(y=down, x=across)
    said = ("artifact", "method", "dataset", "points")
    layers = [
        alt.Chart(alt.InlineData([{"row": label} for label in labels]))
        .mark_text(align="left", dy=-LABEL_ABOVE, tooltip=None)
        .encode(y=down, x=alt.value(0), text="row:N"),
        base.mark_line(color=OTHER_COLOUR, strokeWidth=1.5).encode(detail="row:N"),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            color=colour.legend(alt.Legend(columns=2, labelLimit=0)),
            tooltip=[alt.Tooltip(field=name, type="nominal") for name in said],
        ),
    ]
    return layered(points, layers)
