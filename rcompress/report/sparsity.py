"""How sparse each layer is: one bar per layer."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from rcompress.methods.sparsify import LayerSparsity
from rcompress.report.charts import BAR_HEIGHT, BAR_STEP, layered, picture

BAR_COLOUR, DENSE_COLOUR = "#2f80ed", "#7b8794"


def sparsity_png(table: Sequence[LayerSparsity], title: str) -> bytes:
    """The layers' share of zeros in percent, in the network's order, with their counts, as a PNG's bytes.

    Layers that were left dense on purpose are named in grey.
    """
    points = [
        {
            "name": row.name,
            "percent": row.sparsity_percent,
            "shown": f"{row.sparsity_percent:.1f} %, {row.nonzero:,} of {row.weights:,} left",
            "dense": row.reason is not None,
        }
        for row in table
    ]
    base = alt.Chart().encode(
        y=alt.Y("name:N", title=None, sort=None).axis(labelLimit=220, ticks=False, domain=False),
        x=alt.X("percent:Q", title="weights that are exactly zero (%)")
        .axis(values=[0, 25, 50, 75, 100])
        .scale(domain=[0, 135]),
    )
    colour = alt.when("datum.dense").then(alt.value(DENSE_COLOUR)).otherwise(alt.value(BAR_COLOUR))
    layers = [
        base.mark_bar(height=BAR_HEIGHT, cornerRadiusEnd=2).encode(fill=colour),
        base.mark_text(align="left", dx=5).encode(text="shown:N", color=colour),
    ]
    weights, nonzero = sum(row.weights for row in table), sum(row.nonzero for row in table)
    subtitle = [
        f"{nonzero:,} of {weights:,} weights are not zero ({100 * (1 - nonzero / weights):.1f} % sparse)"
    ]
    return picture(layered(points, layers), title, subtitle, BAR_STEP * len(points))
