"""What compression left of each layer: channels, and weights that are not zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from rcompress.report.ancestry import descent
from rcompress.report.build import Report
from rcompress.report.charts import OTHER_COLOUR, layered
from rcompress.report.curves import SERIES_MOST, legend_columns, series_colours
from rcompress.report.frame import LARGEST, Row
from rcompress.report.lineage import identity
from rcompress.report.plots import Plot
from rcompress.report.text import significant

ROW_STEP, BAR_HEIGHT = 17, 9
FIGURES = ("width", "weights", "nonzero")

Layers = Mapping[str, Mapping[str, int]]


def layer_plots(report: Report) -> list[Plot]:
    """Widths and sparsity per layer of what was made of the baseline's root, against the root itself."""
    known = _known(report)
    base = next(row["sha256"] for row in report.frame.to_dicts() if row["artifact"] == report.baseline)
    root = descent(base, report.histories.get(base, [])).root
    if root not in known:
        return []
    family = {
        sha256: layers
        for sha256, layers in known.items()
        if sha256 != root
        and descent(sha256, report.histories.get(sha256, [])).root == root
        and list(layers) == list(known[root])
    }
    names = {row["sha256"]: row["artifact"] for row in report.frame.to_dicts()}
    return [*_widths(names, root, known[root], family), *_sparsity(names, family)]


def _widths(names: Mapping[str, str], root: str, whole: Layers, family: Mapping[str, Layers]) -> list[Plot]:
    narrowed = {
        names[sha256]: {name: layer["width"] for name, layer in layers.items()}
        for sha256, layers in family.items()
        if any(layer["width"] != whole[name]["width"] for name, layer in layers.items())
    }
    if not narrowed:
        return []
    widths = {name: layer["width"] for name, layer in whole.items()}
    reading = [f"Grey bar: {names[root]}. Dots: what pruning left of it.", *_counted(narrowed)]
    chart = _dots(narrowed, "channels that come out", widths)
    return [
        Plot("layer-widths", "Widths per layer", reading, chart, ROW_STEP * len(widths), _legend(narrowed))
    ]


def _sparsity(names: Mapping[str, str], family: Mapping[str, Layers]) -> list[Plot]:
    sparse = {
        names[sha256]: {
            name: 100 * (1 - layer["nonzero"] / layer["weights"]) for name, layer in layers.items()
        }
        for sha256, layers in family.items()
        if any(layer["nonzero"] < layer["weights"] for layer in layers.values())
    }
    if not sparse:
        return []
    reading = ["Dots: the share of the layer's weights that is exactly zero.", *_counted(sparse)]
    height = ROW_STEP * len(next(iter(sparse.values())))
    chart = _dots(sparse, "weights that are zero (%)")
    return [Plot("layer-sparsity", "Sparsity per layer", reading, chart, height, _legend(sparse))]


def _counted(series: Mapping[str, Any]) -> list[str]:
    return [f"{SERIES_MOST} of {len(series)} artifacts."] if len(series) > SERIES_MOST else []


def _legend(series: Mapping[str, Any]) -> dict[str, str]:
    return series_colours(_spread(series))


def _spread(series: Mapping[str, Any]) -> list[str]:
    """As many as there are colours, evenly from the first to the last."""
    names = list(series)
    count = min(len(names), SERIES_MOST)
    return [names[round(place * (len(names) - 1) / max(count - 1, 1))] for place in range(count)]


def _dots(
    series: Mapping[str, Mapping[str, float]], title: str, bars: Mapping[str, float] | None = None
) -> alt.LayerChart:
    """A row per layer in the network's order; ``bars`` stand behind the dots."""
    shown = {name: series[name] for name in _spread(series)}
    colours = series_colours(shown)
    order = list(next(iter(shown.values())))
    points: list[Row] = [
        {
            "layer": layer,
            "artifact": name,
            "x": value,
            title: significant(value),
            "whole": (bars or {}).get(layer),
        }
        for name, values in shown.items()
        for layer, value in values.items()
    ]
    colour = alt.Color("artifact:N").scale(domain=list(colours), range=list(colours.values()))
    down = alt.Y("layer:N", title=None, sort=order).axis(
        labelLimit=150, labelPadding=6, labelOverlap=False, ticks=False, domain=False, grid=True
    )
    across = alt.X("x:Q", title=title, scale=alt.Scale(domainMin=0, zero=True))
    base = alt.Chart().encode(y=down)
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(
        x=across,
        color=colour.legend(alt.Legend(columns=legend_columns(list(shown)), labelLimit=0)),
        tooltip=[alt.Tooltip(field=name, type="nominal") for name in ("artifact", "layer", title)],
    )
    behind = base.mark_bar(height=BAR_HEIGHT, color=OTHER_COLOUR, opacity=0.35).encode(
        x=alt.X("max(whole):Q", title=title)
    )
    return layered(points, [*([behind] if bars else []), dots])


def _known(report: Report) -> dict[str, Layers]:
    """By SHA-256, the layers that a record tells, if they are what they should be."""
    told = {identity(r): r.context["layers"] for r in report.records if "layers" in r.context}
    return {sha256: layers for sha256, layers in told.items() if isinstance(layers, dict) and _sound(layers)}


def _sound(layers: dict[str, Any]) -> bool:
    return bool(layers) and all(
        isinstance(layer, dict)
        and all(isinstance(layer.get(name), int) and 0 < layer[name] < LARGEST for name in FIGURES[:2])
        and isinstance(layer.get("nonzero"), int)
        and 0 <= layer["nonzero"] <= layer["weights"]
        for layer in layers.values()
    )
