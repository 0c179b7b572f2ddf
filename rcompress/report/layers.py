"""A diagnosis as a picture: how far each layer lies from its reference, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from rcompress.report.charts import OTHER_COLOUR, Spec, layered, picture
from rcompress.report.text import signed
from rcompress.search.diagnosis import Diagnosis, LayerReport

ROW = 17
CEILING_DB = 60.0
TOGETHER, ALONE, PARTED = "#2f80ed", "#b9c4cf", "#e4572e"


def diagnosis_png(diagnosis: Diagnosis, title: str) -> bytes:
    """Draw the signal-to-noise ratio of every layer in the network's order, from the input down.

    Returns:
        A PNG file's bytes. Ratios beyond 60 dB end there: nothing that matters differs.
    """
    reports = [*diagnosis.layers, diagnosis.output]
    points = [point for report in reports if (point := _point(report)) is not None]
    chart = layered(points, _marks([point["layer"] for point in points], diagnosis.part_below_db))
    subtitle = [
        diagnosis.said,
        "Dot: all layers up to here are B's. Bar: this layer alone is. Text: top-1 points it costs alone.",
    ]
    return picture(chart, title, subtitle, ROW * len(points))


def _marks(order: Sequence[str], part_below_db: float) -> list[alt.Chart]:
    base = alt.Chart().encode(
        y=alt.Y("layer:N", title=None, sort=list(order)).axis(labelLimit=220, ticks=False, domain=False)
    )
    across = alt.Scale(domain=[0, CEILING_DB * 1.1], nice=False, clamp=True)
    colour = (
        alt.when(f"datum.together < {part_below_db}").then(alt.value(PARTED)).otherwise(alt.value(TOGETHER))
    )
    return [
        base.mark_bar(height=ROW - 7, color=ALONE).encode(
            x=alt.X("alone:Q", title="signal-to-noise ratio (dB)", scale=across)
        ),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            x=alt.X("together:Q", scale=across), color=colour
        ),
        base.mark_text(align="right").encode(x=alt.value(alt.ExprRef("width")), text="cost:N"),
        alt.Chart()
        .mark_rule(color=OTHER_COLOUR, strokeDash=[4, 4])
        .encode(x=alt.XDatum(part_below_db, scale=across)),
    ]


def _point(report: LayerReport) -> Spec | None:
    if report.distance is None:
        return None
    return {
        "layer": report.layer,
        "together": _bounded(report.distance.snr_db),
        "alone": None if report.own is None else _bounded(report.own.snr_db),
        "cost": "" if report.cost is None else signed(report.cost.difference_percent),
    }


def _bounded(decibels: float) -> float:
    return CEILING_DB if math.isinf(decibels) and decibels > 0 else max(0.0, min(decibels, CEILING_DB))
