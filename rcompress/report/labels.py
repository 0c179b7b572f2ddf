"""Where a point's name goes so that it covers neither another point nor another name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]
CHARACTER_WIDTH, LINE_HEIGHT, GAP, DOT = 6.3, 13.0, 9.0, 6.0


@dataclass(frozen=True)
class Place:
    """A text's anchor relative to its point, in pixels, y downwards."""

    align: Literal["left", "center", "right"]
    baseline: Literal["top", "middle", "bottom"]
    dx: float
    dy: float


PLACES = (
    Place("left", "middle", GAP, 0),
    Place("left", "bottom", GAP - 3, -GAP + 4),
    Place("left", "top", GAP - 3, GAP - 4),
    Place("right", "middle", -GAP, 0),
    Place("right", "bottom", -GAP + 3, -GAP + 4),
    Place("right", "top", -GAP + 3, GAP - 4),
    Place("center", "bottom", 0, -GAP),
    Place("center", "top", 0, GAP),
    Place("left", "bottom", DOT, -GAP - LINE_HEIGHT),
    Place("left", "top", DOT, GAP + LINE_HEIGHT),
)


def placed(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    size: tuple[float, float],
    lines: Sequence[Box] = (),
) -> list[Place | None]:
    """Where each point's name goes, None where there is no room.

    Args:
        points: (x, y) in pixels from the top left.
        names: one per point.
        size: (width, height) of the area that names must not leave.
        lines: boxes (left, top, right, bottom) that names keep off as long as there is another place.
    """
    boxes = [
        [(place, _box(point, len(name) * CHARACTER_WIDTH, place)) for place in PLACES]
        for point, name in zip(points, names, strict=True)
    ]
    dots = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in points]
    room = [
        [(place, box) for place, box in choices if _inside(box, size) and not _hits(box, dots)]
        for choices in boxes
    ]
    return max((_greedy(order, room, lines) for order in _orders(points)), key=_named)


def _orders(points: Sequence[tuple[float, float]]) -> Iterator[list[int]]:
    """Who chooses first matters; these few orders are tried."""
    indices = range(len(points))
    for key in (lambda i: i, lambda i: points[i], lambda i: points[i][::-1]):
        ascending = sorted(indices, key=key)
        yield ascending
        yield ascending[::-1]


def _greedy(
    order: Sequence[int], room: Sequence[Sequence[tuple[Place, Box]]], lines: Sequence[Box]
) -> list[Place | None]:
    """One name after the other takes its first free place, one clear of ``lines`` if there is any."""
    places: list[Place | None] = [None] * len(room)
    taken: list[Box] = []
    for index in order:
        free = [(place, box) for place, box in room[index] if not _hits(box, taken)]
        clear = [(place, box) for place, box in free if not _hits(box, lines)]
        for place, box in (clear or free)[:1]:
            places[index] = place
            taken.append(box)
    return places


def _named(places: Sequence[Place | None]) -> int:
    return sum(place is not None for place in places)


def _box(point: tuple[float, float], width: float, place: Place) -> Box:
    left = point[0] + place.dx - {"left": 0.0, "center": width / 2, "right": width}[place.align]
    top = point[1] + place.dy - {"top": 0.0, "middle": LINE_HEIGHT / 2, "bottom": LINE_HEIGHT}[place.baseline]
    return left, top, left + width, top + LINE_HEIGHT


def _inside(box: Box, size: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]


def _hits(box: Box, others: Sequence[Box]) -> bool:
    return any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in others)
