"""Every row against the baseline: computed, and only like with like."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rcompress.errors import RcompressError
from rcompress.report.frame import ACCURACY_KEYS, BENCH_RUN, SPEED_KEYS, Row

DELTAS: dict[str, type[pl.DataType]] = {
    "compression_ratio": pl.Float64,
    "top1_difference_points": pl.Float64,
    "top1_difference_reason": pl.String,
    "speedup": pl.Float64,
    "speedup_reason": pl.String,
}


def with_deltas(frame: pl.DataFrame, baseline: str | None = None) -> pl.DataFrame:
    """Add what each row gains and loses against the baseline.

    The baseline is an artifact in one backend: the first row of ``baseline`` (of all, if None) and that
    artifact's other rows in the same backend, so that batch 1 is compared with batch 1. Where its accuracy was
    not measured there, that in another backend counts.

    Returns:
        ``frame``, a row for each condition, with ``compression_ratio`` (baseline bytes over bytes),
        ``top1_difference_points`` (row minus baseline; same dataset, split and images), ``speedup`` (baseline p50
        latency over the row's; same machine, device, threads, batch size and transfers, in turns within one run).
        Where two figures were taken under different conditions the delta is null and ``..._reason`` says what
        differs.

    Raises:
        RcompressError: no artifact is called ``baseline``.
    """
    rows = frame.to_dicts()
    base = _baseline_rows(rows, baseline)
    evaluated = _evaluated(rows, base)
    deltas = [_deltas(row, base, evaluated) for row in rows]
    compared = frame.drop(DELTAS, strict=False).hstack(pl.DataFrame(deltas, schema=DELTAS))
    return compared[_counting(compared.to_dicts())]


def baseline_of(frame: pl.DataFrame, baseline: str | None) -> tuple[str, str | None]:
    """The artifact that ``with_deltas`` compares with, and the backend it ran in."""
    first = _baseline_rows(frame.to_dicts(), baseline)[0]
    return str(first["artifact"]), first["backend"]


def _baseline_rows(rows: Sequence[Row], baseline: str | None) -> list[Row]:
    if baseline is None:
        first = rows[0]
    else:
        named = [row for row in rows if row["artifact"] == baseline]
        if not named:
            names = ", ".join(dict.fromkeys(row["artifact"] for row in rows))
            raise RcompressError(baseline, "is not among the artifacts measured", f"name one of {names}")
        first = named[0]
    return [row for row in rows if (row["sha256"], row["backend"]) == (first["sha256"], first["backend"])]


def _evaluated(rows: Sequence[Row], base: Sequence[Row]) -> list[Row]:
    """The baseline's rows with an accuracy: those in its backend, or else in others."""
    own = [row for row in rows if row["sha256"] == base[0]["sha256"] and row["top1_percent"] is not None]
    return [row for row in own if row["backend"] == base[0]["backend"]] or own


def _deltas(row: Row, base: Sequence[Row], evaluated: Sequence[Row]) -> Row:
    nearest = sorted(evaluated, key=lambda other: bool(other["backend"] != row["backend"]))
    accuracy, accuracy_reason = _comparable(row, nearest or base, "top1_percent", tuple(ACCURACY_KEYS))
    speed, speed_reason = _comparable(row, base, "latency_p50_ms", (*SPEED_KEYS, *BENCH_RUN))
    return {
        "compression_ratio": _ratio(base[0]["size_bytes"], row["size_bytes"]),
        "top1_difference_points": accuracy and row["top1_percent"] - accuracy["top1_percent"],
        "top1_difference_reason": accuracy_reason,
        "speedup": speed and _ratio(speed["latency_p50_ms"], row["latency_p50_ms"]),
        "speedup_reason": speed_reason,
    }


def _counting(rows: Sequence[Row]) -> list[int]:
    """Positions of the rows that count: of several runs, the last with a speed-up, or the last."""
    chosen: dict[tuple[object, ...], int] = {}
    for position, row in enumerate(rows):
        key = tuple(row[name] for name in ("sha256", "backend", *SPEED_KEYS, *ACCURACY_KEYS))
        if key not in chosen or row["speedup"] is not None or rows[chosen[key]]["speedup"] is None:
            chosen[key] = position
    return sorted(chosen.values())


def _comparable(
    row: Row, base: Sequence[Row], metric: str, conditions: tuple[str, ...]
) -> tuple[Row | None, str | None]:
    """The baseline's row taken under the same conditions, or why there is none."""
    if row[metric] is None:
        return None, None
    measured = [other for other in base if other[metric] is not None]
    for other in measured:
        if all(other[name] == row[name] for name in conditions):
            return other, None
    if not measured:
        return None, f"not measured for {base[0]['artifact']}"
    return None, _difference(row, measured, conditions)


def _difference(row: Row, measured: Sequence[Row], conditions: tuple[str, ...]) -> str:
    """What differs from the baseline row that is most like this one."""
    nearest = max(measured, key=lambda other: sum(other[name] == row[name] for name in conditions))
    parts = [
        f"{name.replace('_', ' ')} {_shown(row[name])}, {_shown(nearest[name])} for {nearest['artifact']}"
        for name in conditions
        if nearest[name] != row[name] and name not in BENCH_RUN
    ]
    return (
        "; ".join(parts) or f"not timed in turns with {nearest['artifact']}: name both to one rcompress bench"
    )


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _ratio(baseline: float | None, value: float | None) -> float | None:
    if baseline is None or value is None or baseline <= 0 or value <= 0:
        return None
    return baseline / value
