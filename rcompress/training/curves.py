"""Learning curves: loss and accuracy over the epochs, as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

PANEL_WIDTH, PANEL_HEIGHT, SCALE = 340, 230, 2
COLOURS = {"train": "#d97706", "validation": "#2563eb"}
SERIES = {
    "loss": {"train": "train_loss", "validation": "validation_loss"},
    "top-1 accuracy (%)": {"train": "train_top1_percent", "validation": "validation_top1_percent"},
}


def curves_png(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw loss and top-1 accuracy, train and validation, over the epochs.

    Args:
        history: one mapping per epoch: ``epoch`` and any of ``train_loss``, ``validation_loss``,
            ``train_top1_percent``, ``validation_top1_percent``. Absent and non-finite values leave a gap.

    Returns:
        A PNG file's bytes, two panels side by side.

    Raises:
        ValueError: ``history`` holds nothing that can be drawn.
    """
    schema = {"panel": str, "series": str, "epoch": int, "value": float}
    points = pl.DataFrame(list(_points(history)), schema=schema)
    if points.is_empty():
        raise ValueError("the history holds no finite loss and no accuracy")
    drawn = [name for name in SERIES if name in points["panel"]]
    panels = [_panel(points.filter(pl.col("panel") == name), name) for name in drawn]
    chart = alt.hconcat(*panels, spacing=32).configure(font="sans-serif", padding=12, background="white")
    chart = chart.configure_view(stroke=None).configure_axis(gridColor="#e5e7eb", domainColor="#9ca3af")
    content = io.BytesIO()
    chart.save(content, format="png", scale_factor=SCALE)
    return content.getvalue()


def _points(history: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in history:
        for panel, series in SERIES.items():
            for name, key in series.items():
                value = row.get(key)
                if value is not None and math.isfinite(value):
                    yield {"panel": panel, "series": name, "epoch": int(row["epoch"]), "value": float(value)}


def _panel(points: pl.DataFrame, name: str) -> alt.Chart:
    colour = alt.Color("series:N", title=None).scale(domain=list(COLOURS), range=list(COLOURS.values()))
    few = points["epoch"].n_unique() <= 30  # beyond that the dots hide the line
    chart: alt.Chart = (
        alt.Chart(points, width=PANEL_WIDTH, height=PANEL_HEIGHT)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=28) if few else False)
        .encode(
            x=alt.X("epoch:Q", title="epoch").axis(tickMinStep=1, format="d", grid=False).scale(nice=False),
            y=alt.Y("value:Q", title=name).scale(zero=False),
            color=colour.legend(orient="top", symbolType="stroke"),
        )
    )
    return chart
