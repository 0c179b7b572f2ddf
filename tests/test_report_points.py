"""Which rows a plot shows, and the Pareto front among them."""

from __future__ import annotations

import random

import pytest
import reporting

from rcompress.report.compare import with_deltas
from rcompress.report.frame import Row, frame_from_records
from rcompress.report.labels import CHARACTER_WIDTH, DOT, LINE_HEIGHT, Place, placed
from rcompress.report.plots import largest, smallest
from rcompress.report.points import ACCURACY, LATENCY, SIZE, THROUGHPUT, comparable, on_front
from rcompress.report.text import in_words


def _rows() -> list[Row]:
    return with_deltas(frame_from_records(reporting.family())).to_dicts()


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 90.0), (2, 91.0), (3, 92.0)], [True, True, True]),
        ([(1, 90.0), (2, 89.0), (3, 92.0)], [True, False, True]),
        ([(1, 90.0), (1, 90.0), (1, 89.0)], [True, True, False]),
        ([(1, 90.0), (2, 90.0)], [True, False]),
        ([(5, 90.0)], [True]),
    ],
    ids=["rising", "beaten", "equal", "larger for nothing", "alone"],
)
def test_the_front_is_what_nothing_beats(points: list[tuple[int, float]], front: list[bool]) -> None:
    rows = [{"size_bytes": size, "top1_percent": top1} for size, top1 in points]
    assert on_front(rows, SIZE, ACCURACY) == front


def test_latency_is_compared_at_the_smallest_batch_and_throughput_at_the_largest() -> None:
    points, conditions = comparable(_rows(), (ACCURACY, LATENCY), smallest)
    assert [point["latency_p50_ms"] for point in points] == [2.0, 0.5]
    assert in_words(conditions) == "digits, test split, 1,000 images, Test CPU (AVX2), 1 thread, batch 1"
    points, _ = comparable(_rows(), (THROUGHPUT,), largest)
    assert {point["batch_size"] for point in points} == {64}


def test_accuracy_over_size_shows_each_artifact_once() -> None:
    points, _ = comparable(_rows(), (ACCURACY, SIZE), smallest)
    assert [point["artifact"] for point in points] == ["a.pth", "b.onnx"]


def test_most_artifacts_decide_which_conditions_are_shown() -> None:
    records = [
        reporting.benched("a.pth", 1.0, batch_size=1),
        reporting.benched("a.pth", 1.0, batch_size=8),
        reporting.benched("b.pth", 1.0, batch_size=8),
    ]
    points, conditions = comparable(frame_from_records(records).to_dicts(), (LATENCY,), smallest)
    assert len(points) == 2
    assert conditions["batch_size"] == 8


def test_nothing_comparable_gives_no_points() -> None:
    assert comparable(_rows(), (ACCURACY,), smallest)[0]
    without = [row | {"top1_percent": None} for row in _rows()]
    assert comparable(without, (ACCURACY,), smallest) == ([], {})


def _box(point: tuple[float, float], name: str, place: Place) -> tuple[float, float, float, float]:
    width = len(name) * CHARACTER_WIDTH
    left = point[0] + place.dx - width * {"left": 0, "center": 0.5, "right": 1}[place.align]
    top = point[1] + place.dy - LINE_HEIGHT * {"top": 0, "middle": 0.5, "bottom": 1}[place.baseline]
    return left, top, left + width, top + LINE_HEIGHT


def test_names_cover_neither_each_other_nor_a_dot_nor_leave_the_plot() -> None:
    chance = random.Random(0)
    points = [(chance.uniform(0, 600), chance.uniform(0, 300)) for _ in range(25)]
    names = [f"network-{index}.onnx" for index in range(25)]
    places = placed(points, names, (600, 300))
    shown = [
        _box(p, n, place) for p, n, place in zip(points, names, places, strict=True) if place is not None
    ]
    assert len(shown) >= 22
    obstacles = [*shown, *((x - DOT, y - DOT, x + DOT, y + DOT) for x, y in points)]
    for index, a in enumerate(shown):
        assert a[0] >= 0
        assert a[1] >= 0
        assert a[2] <= 600
        assert a[3] <= 300
        for other, b in enumerate(obstacles):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert other == index or apart


def test_a_name_keeps_off_a_line_where_it_can() -> None:
    across = (0.0, 100.0, 300.0, 100.0)
    [place] = placed([(100.0, 100.0)], ["a.onnx"], (300, 200), [across])
    assert place is not None
    assert place.baseline != "middle"
