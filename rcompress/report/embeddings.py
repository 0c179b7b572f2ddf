"""Features before and after compression in the plane: PCA above, t-SNE below."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
from numpy.typing import NDArray

from rcompress.report.charts import FONT, png_of
from rcompress.report.curves import PALETTE
from rcompress.search.features import Embedding, FeaturePair

PANEL, MARGIN = 330, 0.04
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
    classes = [_name(class_names, label) for label in pair.labels.tolist()]
    order = [_name(class_names, label) for label in np.unique(pair.labels).tolist()]
    sides = list(zip(names, (pair.before, pair.after), strict=True))
    pca, tsne = _limits([side.pca for _, side in sides]), _limits([side.tsne for _, side in sides])
    above = [_panel(side.pca, pca, classes, order, name, _pca_said(side)) for name, side in sides]
    below = [_panel(side.tsne, tsne, classes, order, name, "t-SNE") for name, side in sides]
    heading = alt.TitleParams(title, fontSize=15, anchor="start", offset=14)
    rows = alt.hconcat(*above), alt.hconcat(*below)
    chart = alt.vconcat(*rows, title=heading, background="white", padding=14)
    styled = chart.configure(font=FONT).configure_view(stroke="#aab4be").configure_title(fontSize=13)
    return png_of(styled.configure_legend(title=None, labelFontSize=12, symbolOpacity=1, symbolSize=80))


def _pca_said(side: Embedding) -> str:
    return f"PCA, {side.explained_percent:.0f} % of the variance; silhouette {side.silhouette:.2f}"


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
    """Axes without figures: distances in such a plane have no unit."""
    points = [{"x": x, "y": y, "class": c} for (x, y), c in zip(plane.tolist(), classes, strict=True)]
    heading = alt.TitleParams(name, subtitle=said, anchor="start", limit=PANEL)
    few = len(order) <= len(COLOURS)
    colour = alt.Color("class:N", sort=list(order))
    colour = colour.scale(domain=list(order), range=list(COLOURS)) if few else colour.scale(scheme="turbo")
    across, up = (alt.Scale(domain=limit, nice=False, zero=False) for limit in limits)
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(points), title=heading)
        .mark_point(filled=True, size=22, opacity=0.75)
        .encode(
            x=alt.X("x:Q", axis=None, scale=across),
            y=alt.Y("y:Q", axis=None, scale=up),
            color=colour if few else colour.legend(None),
        )
        .properties(width=PANEL, height=PANEL)
    )
    return chart
