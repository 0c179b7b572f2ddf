"""Confusion matrices as heat maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rcompress.artifacts.records import Record
from rcompress.report.build import Report
from rcompress.report.charts import FONT, layered, png_of
from rcompress.report.frame import ACCURACY_KEYS, names_of
from rcompress.report.lineage import identity
from rcompress.report.plots import Plot
from rcompress.report.text import in_words, printable

LABELLED_CLASSES = 40
WRITTEN_CLASSES = 12
SHORT_NAME = 3
AREA = 520
SHADE, DEEPEST = "#2f80ed", 0.85  # ink can be read on it on white as on black paper
HOVER = {"of": "true class", "as": "predicted class", "images": "images", "shown": "% of the true class"}
READING = "The deeper, the larger the share of the true class; figures in %, empty: none."


def confusion_png(counts: ArrayLike, class_names: Sequence[str] = (), title: str = "") -> bytes:
    """Draw which classes are taken for which, each true class's row shared out to 100 %.

    Args:
        counts: (C, C) integers, images of true class (row) to which the network gave a class (column).
        class_names: C names, or none: then the classes' numbers stand there.
        title: a line above the map.

    Returns:
        A PNG file's bytes. Up to 12 classes the shares are written into the cells.

    Raises:
        ValueError: ``counts`` is not square or no counts, or there is another number of names than classes.
    """
    matrix, names = _checked(counts, class_names)
    side = max(AREA // len(matrix), 1) * len(matrix)
    heading = alt.TitleParams(title, anchor="start", frame="bounds", offset=14)
    sized = _chart(matrix, names).properties(
        width=side, height=side, title=heading, background="white", padding=14
    )
    return png_of(sized.configure(font=FONT).configure_view(stroke="#aab4be"))


def confusion_plots(report: Report) -> tuple[list[Plot], list[str]]:
    """The matrices of the baseline and of the smallest artifact measured on the same images.

    Returns:
        The plots, and a sentence for each matrix that is none.
    """
    plots, missing, names = [], [], names_of(report.frame)
    for ending, record in _chosen(report).items():
        try:
            matrix, classes = _checked(record.context["confusion"], _class_names(record))
        except (ValueError, TypeError, OverflowError) as error:
            missing.append(f"No confusion matrix of {names[identity(record)]}: {error}.")
            continue
        where = in_words({key: printable(record.context.get(key)) for key in ("dataset", "split", "backend")})
        if len(matrix) > 1:
            title = f"Confusion of {names[identity(record)]}"
            plots.append(Plot(f"confusion-{ending}", title, [where, READING], _chart(matrix, classes)))
    return plots, missing


def _chosen(report: Report) -> dict[str, Record]:
    """The baseline's record, and that of the smallest file on the same images, if it is another."""
    measured = [r for r in report.records if r.kind == "eval" and r.context.get("confusion")]
    rows = {row["sha256"]: row for row in report.frame.to_dicts()}
    base = next((r for r in measured if rows[identity(r)]["artifact"] == report.baseline), None)
    if base is None:
        return {}
    alike = [r for r in measured if all(r.context.get(k) == base.context.get(k) for k in ACCURACY_KEYS)]
    sized = [r for r in alike if rows[identity(r)]["size_bytes"]]
    smallest = min(sized, key=lambda r: rows[identity(r)]["size_bytes"], default=base)
    return {"baseline": base} if smallest.sha256 == base.sha256 else {"baseline": base, "smallest": smallest}


def _class_names(record: Record) -> list[str]:
    """Names that fit the matrix, else none."""
    names = record.context.get("classes")
    fitting = isinstance(names, list) and len(names) == len(record.context["confusion"])
    return [str(printable(name)) for name in names] if fitting and names else []


def _checked(counts: ArrayLike, class_names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    matrix = np.asarray(counts)
    classes = len(matrix) if matrix.ndim else 0
    if not classes or matrix.shape != (classes, classes):
        raise ValueError("a confusion matrix has as many rows as columns")
    if matrix.dtype.kind not in "iu" or matrix.min() < 0:
        raise ValueError("a confusion matrix counts images")
    if class_names and len(class_names) != classes:
        raise ValueError(f"{len(class_names)} names for {classes} classes")
    return matrix.astype(np.int64), list(class_names) or [str(index) for index in range(classes)]


def _chart(matrix: NDArray[np.int64], names: Sequence[str]) -> alt.LayerChart:
    classes = len(matrix)
    layers = [_cells(classes, names), *([_figures()] if classes <= WRITTEN_CLASSES else [])]
    return layered(list(_shares(matrix.tolist(), names)), layers)


def _shares(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Cells that hold an image; the others stay as white as the paper."""
    for true, row in enumerate(counts):
        for predicted, count in enumerate(row):
            if count:
                share = 100.0 * count / sum(row)
                shown = f"{share:.0f}" if share >= 1 else "<1"
                yield {
                    "true": true,
                    "predicted": predicted,
                    "share": share,
                    "shown": shown,
                    "of": names[true],
                    "as": names[predicted],
                    "images": count,
                }


def _cells(classes: int, names: Sequence[str]) -> alt.Chart:
    """Classes are placed by number, so that two of one name stay apart; the root shows rare errors."""
    domain = list(range(classes))
    angle = -45 if max(map(len, names)) > SHORT_NAME else 0
    across = alt.X("predicted:O", title="predicted class", axis=_axis(classes, names, angle))
    down = alt.Y("true:O", title="true class", axis=_axis(classes, names, 0))
    share = alt.Opacity("share:Q").scale(type="sqrt", domain=[0, 100], range=[0, DEEPEST]).legend(None)
    cells: alt.Chart = (
        alt.Chart()
        .mark_rect(color=SHADE)
        .encode(
            x=across.scale(domain=domain),
            y=down.scale(domain=domain),
            opacity=share,
            tooltip=[alt.Tooltip(f"{name}:N", title=title) for name, title in HOVER.items()],
        )
    )
    return cells


def _axis(classes: int, names: Sequence[str], angle: int) -> alt.Axis:
    every = -(-classes // LABELLED_CLASSES)
    label = f"datum.value % {every} == 0 ? {json.dumps(list(names))}[datum.value] : ''"
    return alt.Axis(
        labelExpr=label,
        labelAngle=angle,
        labelLimit=110,
        labelPadding=6,
        labelOverlap=False,
        ticks=False,
        domain=False,
    )


def _figures() -> alt.Chart:
    figures: alt.Chart = (
        alt.Chart()
        .mark_text(fontSize=12, color="#1d2429", tooltip=None)
        .encode(x="predicted:O", y="true:O", text="shown:N")
    )
    return figures
