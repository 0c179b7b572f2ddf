"""Sensitivity as a heat map: one row per group of channels, one column per share that is removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from rcompress.report.charts import FONT, layered, png_of
from rcompress.search.sensitivity import Curve

CELL_WIDTH, CELL_HEIGHT = 56, 20
SHADES = ["#ffffff", "#f6c36b", "#b3261e"]
SUBTITLE = (
    "Colour: divergence of the outputs from the whole network's.",
    "Figures: points of top-1 accuracy lost on the same images.",
)


def sensitivity_png(curves: Mapping[str, Curve], top1_percent: float, title: str) -> bytes:
    """Draw the harm that narrowing each group alone does.

    Args:
        curves: by group, in the network's order.
        top1_percent: the whole network's accuracy on the same images.
        title: a line above the map.

    Returns:
        A PNG file's bytes.

    Raises:
        ValueError: there are no curves with points.
    """
    cells = list(_cells(curves, top1_percent))
    if not cells:
        raise ValueError("no group was narrowed")
    groups = list(dict.fromkeys(cell["group"] for cell in cells))
    removed = sorted({cell["removed"] for cell in cells})
    chart = layered(cells, [_colours(groups, removed), _figures(groups, removed)])
    heading = alt.TitleParams(title, subtitle=list(SUBTITLE), anchor="start", frame="bounds", offset=14)
    styled = chart.properties(
        width=CELL_WIDTH * len(removed),
        height=CELL_HEIGHT * len(groups),
        title=heading,
        background="white",
        padding=14,
    )
    return png_of(styled.configure(font=FONT).configure_view(stroke="#aab4be"))


def _cells(curves: Mapping[str, Curve], top1_percent: float) -> Iterator[dict[str, Any]]:
    """Shares are rounded to 5 %, so that groups of different widths stand in the same columns."""
    for name, curve in curves.items():
        for point in curve.points:
            drop = top1_percent - point.top1_percent
            yield {
                "group": f"{name} ({curve.width})",
                "removed": round(20 * (1 - point.kept / curve.width)) * 5,
                "divergence": max(point.divergence, 0.0),
                "drop": f"{drop:.1f}",
            }


def _axes(groups: Sequence[str], removed: Sequence[int]) -> tuple[alt.X, alt.Y]:
    across = alt.X("removed:O", title="channels removed (%)", sort=list(removed))
    down = alt.Y("group:N", title=None, sort=list(groups))
    return (
        across.axis(labelAngle=0, ticks=False, domain=False),
        down.axis(labelLimit=240, ticks=False, domain=False),
    )


def _colours(groups: Sequence[str], removed: Sequence[int]) -> alt.Chart:
    x, y = _axes(groups, removed)
    scale = alt.Scale(type="sqrt", domainMin=0, range=SHADES, interpolate="rgb")
    colour = alt.Color("divergence:Q", title="divergence (nats)").scale(scale)
    cells: alt.Chart = alt.Chart().mark_rect().encode(x=x, y=y, color=colour.legend(gradientLength=160))
    return cells


def _figures(groups: Sequence[str], removed: Sequence[int]) -> alt.Chart:
    x, y = _axes(groups, removed)
    figures: alt.Chart = alt.Chart().mark_text(fontSize=11, color="#1d2429").encode(x=x, y=y, text="drop:N")
    return figures
