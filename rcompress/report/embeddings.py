"""Features before and after compression in the plane: PCA above, t-SNE below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from rcompress.artifacts.records import Record
from rcompress.report.build import Report
from rcompress.report.charts import FONT, layered, png_of
from rcompress.report.curves import PALETTE
from rcompress.report.frame import Row, names_of
from rcompress.report.lineage import identity
from rcompress.report.plots import Plot
from rcompress.report.text import in_words, printable
from rcompress.search.feature_points import FEATURES, Embedding, FeaturePair

PANEL, MARGIN = 330, 0.04
PLANES = {"pca": "PCA", "tsne": "t-SNE"}
MOST_POINTS = 20_000
READING = "Near points look alike to the network; distances between groups mean little."
COLOURS = (
    *PALETTE[:6],
    "#d6336c",
    "#1f3a5f",
    "#8bc34a",
    "#5d4037",
)


def features_png(
    pair: FeaturePair,
    class_names: Sequence[str],
    names: tuple[str, str],
    title: str,
) -> bytes:
    """Draw both networks' features of the same images, coloured by their true class.

    Args:
        pair: see `feature_pair`.
        class_names: one per class; with more than 10 classes there is no legend.
        names: of the two networks.
        title: a line above the picture.

    Returns:
        A PNG file's bytes: PCA in the first row, t-SNE in the second, the same axes for both networks of a row.
    """
    classes, order = _classes(pair, class_names)
    sides = list(zip(names, (pair.before, pair.after), strict=True))
    pca, tsne = _limits([side.pca for _, side in sides]), _limits([side.tsne for _, side in sides])
    above = [_panel(side.pca, pca, classes, order, name, _pca_said(side)) for name, side in sides]
    below = [_panel(side.tsne, tsne, classes, order, name, "t-SNE") for name, side in sides]
    heading = alt.TitleParams(title, fontSize=15, anchor="start", offset=14)
    rows = alt.hconcat(*above), alt.hconcat(*below)
    chart = alt.vconcat(*rows, title=heading, background="white", padding=14)
    styled = chart.configure(font=FONT).configure_view(stroke="#aab4be").configure_title(fontSize=13)
    return png_of(styled.configure_legend(title=None, labelFontSize=12, symbolOpacity=1, symbolSize=80))


def feature_plots(report: Report) -> tuple[list[Plot], list[str]]:
    """Of each ``features`` record, what is told by `feature_record`: PCA and t-SNE of both networks.

    Returns:
        The plots, and a sentence for each record that tells none.
    """
    plots: list[Plot] = []
    missing: list[str] = []
    names = names_of(report.frame)
    for number, record in enumerate(r for r in report.records if r.kind == FEATURES):
        try:
            plots += _record_plots(
                record, names[identity(record)], f"features-{number}" if number else "features"
            )
        except (KeyError, TypeError, ValueError) as error:
            missing.append(f"No features of {names[identity(record)]}: {error}.")
    return plots, missing


def _record_plots(record: Record, name: str, stem: str) -> list[Plot]:
    """Four panels; both networks of a plane have the same axes."""
    context, pair = record.context, _pair(record.context)
    classes, order = _classes(pair, [str(printable(name)) for name in context["classes"]])
    legend = dict(zip(order, COLOURS, strict=False)) if len(order) <= len(COLOURS) else {}
    where = in_words(
        {
            "dataset": printable(context.get("dataset")),
            "split": printable(context.get("split")),
            "images": len(classes),
        }
    )
    sides = {
        "before": (str(printable(context["against"])), pair.before),
        "after": (name, pair.after),
    }
    plots = []
    for plane, method in PLANES.items():
        limits = _limits([getattr(embedding, plane) for _, embedding in sides.values()])
        for side, (network, embedding) in sides.items():
            lines = [where, _pca_said(embedding) if plane == "pca" else READING]
            dots = _dots(alt.Chart(), limits, order).encode(tooltip="class:N")
            chart = layered(_points(getattr(embedding, plane), classes), [dots])
            title = f"Features of {network}: {method}"
            plots.append(Plot(f"{stem}-{plane}-{side}", title, lines, chart, PANEL, legend))
    return plots


def _pair(context: Mapping[str, Any]) -> FeaturePair:
    """What `feature_record` kept, checked."""
    labels = np.asarray(context["labels"])
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not 0 < len(labels) <= MOST_POINTS:
        raise ValueError("its labels are no list of classes")
    if min(labels) < 0 or (context["classes"] and max(labels) >= len(context["classes"])):
        raise ValueError("it has labels without a class")
    before, after = (_embedding(context[side], len(labels)) for side in ("before", "after"))
    return FeaturePair(before, after, labels)


def _embedding(told: Mapping[str, Any], images: int) -> Embedding:
    planes = [np.asarray(told[plane], dtype=np.float64) for plane in PLANES]
    if any(plane.shape != (images, 2) or not np.isfinite(plane).all() for plane in planes):
        raise ValueError("its points are not two numbers for each label")
    return Embedding(planes[0], float(told["explained_percent"]), planes[1], float(told["silhouette"]))


def _pca_said(side: Embedding) -> str:
    return f"PCA, {side.explained_percent:.0f} % of the variance; silhouette {side.silhouette:.2f}"


def _classes(pair: FeaturePair, class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The class of each point, and the classes there are."""
    classes = [_name(class_names, label) for label in pair.labels.tolist()]
    return classes, [_name(class_names, label) for label in np.unique(pair.labels).tolist()]


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if class_names else str(label)


def _limits(planes: Sequence[NDArray[np.float64]]) -> tuple[list[float], list[float]]:
    """The ranges of x and y that hold all points, with a margin."""
    points = np.concatenate(planes)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = (high - low) * MARGIN
    first, second = np.stack([low - margin, high + margin], axis=1).tolist()
    return first, second


def _panel(
    plane: NDArray[np.float64],
    limits: tuple[list[float], list[float]],
    classes: Sequence[str],
    order: Sequence[str],
    name: str,
    said: str,
) -> alt.Chart:
    heading = alt.TitleParams(name, subtitle=said, anchor="start", limit=PANEL)
    chart = alt.Chart(alt.InlineData(_points(plane, classes)), title=heading)
    panel: alt.Chart = _dots(chart, limits, order).properties(width=PANEL, height=PANEL)
    return panel


def _points(plane: NDArray[np.float64], classes: Sequence[str]) -> list[Row]:
    return [{"x": x, "y": y, "class": c} for (x, y), c in zip(plane.tolist(), classes, strict=True)]


def _dots(chart: alt.Chart, limits: tuple[list[float], list[float]], order: Sequence[str]) -> alt.Chart:
    """Axes without figures: distances in such a plane have no unit."""
    few = len(order) <= len(COLOURS)
    colour = alt.Color("class:N", sort=list(order))
    colour = colour.scale(domain=list(order), range=list(COLOURS)) if few else colour.scale(scheme="turbo")
    across, up = (alt.Scale(domain=limit, nice=False, zero=False) for limit in limits)
    dots: alt.Chart = chart.mark_point(filled=True, size=22, opacity=0.75).encode(
        x=alt.X("x:Q", axis=None, scale=across),
        y=alt.Y("y:Q", axis=None, scale=up),
        color=colour if few else colour.legend(None),
    )
    return dots
