"""A confusion matrix as a heat map."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import ArrayLike

from rcompress.report.charts import FONT, layered, png_of

LABELLED_CLASSES = 40
WRITTEN_CLASSES = 12
AREA = 520
SHADES = ["#ffffff", "#1d4f91"]


def confusion_png(counts: ArrayLike, class_names: Sequence[str] = (), title: str = "") -> bytes:
    """Draw which classes are taken for which, each true class's row shared out to 100 %.

    Args:
        counts: (C, C) integers, images of true class (row) to which the network gave a class (column).
        class_names: C names, or none: then the classes' numbers stand there.
        title: a line above the map.

    Returns:
        A PNG file's bytes. Up to 12 classes the shares are written into the cells.

    Raises:
        ValueError: ``counts`` is not square, or there is another number of names than classes.
    """
    matrix = np.asarray(counts)
    classes = len(matrix)
    if not classes or matrix.shape != (classes, classes):
        raise ValueError("a confusion matrix has as many rows as columns")
    if class_names and len(class_names) != classes:
        raise ValueError(f"{len(class_names)} names for {classes} classes")
    names = list(class_names) or [str(index) for index in range(classes)]
    step = max(AREA // classes, 1)
    layers = [_cells(classes, names), *([_figures()] if classes <= WRITTEN_CLASSES else [])]
    chart = layered(list(_shares(matrix.tolist())), layers)
    heading = alt.TitleParams(title, anchor="start", frame="bounds", offset=14)
    side = step * classes
    styled = chart.properties(width=side, height=side, title=heading, background="white", padding=14)
    return png_of(styled.configure(font=FONT).configure_view(stroke="#aab4be"))


def _shares(counts: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
    """Cells that hold an image; the others stay as white as the paper."""
    for true, row in enumerate(counts):
        for predicted, count in enumerate(row):
            if count:
                share = 100.0 * count / sum(row)
                shown = f"{share:.0f}" if share >= 1 else "<1"
                yield {"true": true, "predicted": predicted, "share": share, "shown": shown}


def _cells(classes: int, names: Sequence[str]) -> alt.Chart:
    """Classes are placed by number, so that two of one name stay apart; the root shows rare errors."""
    domain = list(range(classes))
    across = alt.X("predicted:O", title="predicted class", axis=_axis(classes, names, -45))
    down = alt.Y("true:O", title="true class", axis=_axis(classes, names, 0))
    share = alt.Color("share:Q", title="% of the true class")
    cells: alt.Chart = (
        alt.Chart()
        .mark_rect()
        .encode(
            x=across.scale(domain=domain),
            y=down.scale(domain=domain),
            color=share.scale(type="sqrt", domain=[0, 100], range=SHADES, interpolate="rgb").legend(
                gradientLength=160
            ),
        )
    )
    return cells


def _axis(classes: int, names: Sequence[str], angle: int) -> alt.Axis:
    every = -(-classes // LABELLED_CLASSES)
    label = f"datum.value % {every} == 0 ? {json.dumps(list(names))}[datum.value] : ''"
    return alt.Axis(
        labelExpr=label, labelAngle=angle, labelLimit=110, labelOverlap=False, ticks=False, domain=False
    )


def _figures() -> alt.Chart:
    ink = alt.when("datum.share > 25").then(alt.value("white")).otherwise(alt.value("#1d2429"))
    figures: alt.Chart = (
        alt.Chart().mark_text(fontSize=12).encode(x="predicted:O", y="true:O", text="shown:N", color=ink)
    )
    return figures
