"""Which rows a plot may show beside each other, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rcompress.report.frame import ACCURACY_KEYS, SPEED_KEYS, Row
from rcompress.report.score import SCORE


@dataclass(frozen=True)
class Measure:
    """A figure that can be an axis.

    Attributes:
        key: the frame's column.
        label: the axis title, with the unit.
        unit: divides the column's values.
        larger_is_better: which way the Pareto front looks.
        conditions: columns in which rows must agree to be compared by it.
        digits: significant digits shown.
        needs: the command that measures it.
    """

    key: str
    label: str
    unit: float
    larger_is_better: bool
    conditions: tuple[str, ...]
    digits: int
    needs: str


ACCURACY = Measure("top1_percent", "top-1 accuracy (%)", 1, True, tuple(ACCURACY_KEYS), 4, "rcompress eval")
LATENCY = Measure("latency_p50_ms", "latency p50 (ms)", 1, False, tuple(SPEED_KEYS), 3, "rcompress bench")
SIZE = Measure("size_bytes", "file size (MiB)", 2**20, False, (), 3, "rcompress bench")
PARAMETERS = Measure("parameters", "parameters (k)", 1000, False, (), 3, "rcompress eval")
SCORED = Measure(SCORE, "MicroNet score", 1, False, (), 3, "rcompress eval")
THROUGHPUT = Measure("throughput_images_per_s", "images/s", 1, True, tuple(SPEED_KEYS), 3, "rcompress bench")


def drawable(row: Row, measure: Measure) -> bool:
    """Whether the row has the figure, and one that makes sense (0 % does, 0 bytes do not)."""
    value = row[measure.key]
    return value is not None and (value > 0 or measure is ACCURACY)


def comparable(
    rows: Sequence[Row], measures: Sequence[Measure], prefer: Callable[[int], int]
) -> tuple[list[Row], Row]:
    """The largest set of rows that have all ``measures`` and were taken under the same conditions.

    Of two sets of equal size the one with the larger ``prefer(batch size)`` is taken. Rows that differ only
    in conditions that none of the measures depends on are shown once.

    Returns:
        The rows, and the conditions they share; both empty where no row has all the measures.
    """
    keys = [key for measure in measures for key in measure.conditions]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if all(drawable(row, measure) for measure in measures):
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    if not groups:
        return [], {}
    distinct = [
        list({(row["sha256"], row["backend"]): row for row in group}.values()) for group in groups.values()
    ]
    best = max(distinct, key=lambda group: (len(group), prefer(group[0]["batch_size"] or 0)))
    return best, {key: best[0][key] for key in keys}


def on_front(points: Sequence[Row], x: Measure, y: Measure) -> list[bool]:
    """Per point, whether no other is at least as good in both measures and better in one (Pareto)."""
    signs = [(measure.key, 1 if measure.larger_is_better else -1) for measure in (x, y)]
    values = [tuple(sign * point[key] for key, sign in signs) for point in points]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for other in values
        )

    return [not beaten(value) for value in values]
