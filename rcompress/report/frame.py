"""Records to one Polars frame: a row per artifact and condition, accuracy and speed side by side."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from rcompress.artifacts.records import Record
from rcompress.errors import RcompressError
from rcompress.report.lineage import Step, histories, history_text
from rcompress.report.text import printable

ACCURACY_METRICS = ("top1_", "top5_", "loss")
SPEED_METRICS = ("latency_", "throughput_", "peak_memory_", "energy_")
WHOLE_NUMBERS = ("parameters", "nonzero_parameters", "macs", "nonzero_bits", "bit_operations")
REESTIMATION = ("top1_percent_before_reestimation", "top1_percent_after_reestimation")
LARGEST = 2**63 - 1

ACCURACY_KEYS: dict[str, type[pl.DataType]] = {"dataset": pl.String, "split": pl.String, "images": pl.Int64}
SPEED_KEYS: dict[str, type[pl.DataType]] = {
    "machine": pl.String,
    "device": pl.String,
    "threads": pl.Int64,
    "batch_size": pl.Int64,
    "transfers": pl.String,
}
BENCH_RUN: dict[str, type[pl.DataType]] = {"bench_run": pl.String}
"""Which artifacts took turns: only of these do times make a ratio."""
RUN_KEYS: dict[str, type[pl.DataType]] = {"sha256": pl.String, "backend": pl.String}
RESERVED = {"artifact", "arch", "precision", "lineage", *RUN_KEYS, *SPEED_KEYS, *ACCURACY_KEYS, *BENCH_RUN}
SHOWN_ALWAYS = (
    "size_bytes",
    "parameters",
    "nonzero_parameters",
    "macs",
    "top1_percent",
    "latency_p50_ms",
    "throughput_images_per_s",
)

Row = dict[str, Any]


def frame_from_records(records: Sequence[Record]) -> pl.DataFrame:
    """One row per artifact (by SHA-256), backend, device, threads, batch size, bench run, dataset and split.

    Sizes and counts come from every record of the artifact, speed from ``bench`` records, accuracy from
    ``eval`` records, and from other commands' records only for artifacts that have none. Accuracy and speed
    stand in one row where artifact and backend agree. Of several records of the same thing the last counts;
    times of several runs of ``bench`` stand in a row each until `with_deltas` has chosen among them.

    Returns:
        ``artifact``, ``sha256``, ``arch``, ``backend``, ``precision``, the conditions (null where they do not apply),
        every numeric metric under its record's name, and ``lineage``, the commands that made the artifact.
        Artifacts with the shorter history come first, so that a network precedes what was made of it.

    Raises:
        RcompressError: a metric is not a number, or has the name of one of these columns.
    """
    artifacts = _artifacts(records)
    speed = _measured([r for r in records if r.kind == "bench"], SPEED_METRICS, SPEED_KEYS | BENCH_RUN)
    accuracy = _measured(_accuracy_records(records), ACCURACY_METRICS, ACCURACY_KEYS)
    runs = speed.join(
        accuracy, on=list(RUN_KEYS), how="full", coalesce=True, nulls_equal=True, maintain_order="left_right"
    )
    runs = runs.with_columns(pl.coalesce("precision", "precision_right")).drop("precision_right")
    frame = artifacts.join(runs, on="sha256", how="left", maintain_order="left_right")
    missing = [pl.lit(None, _dtype(name)).alias(name) for name in SHOWN_ALWAYS if name not in frame.columns]
    keys = ["artifact", "sha256", "arch", "backend", "precision", *SPEED_KEYS, *BENCH_RUN, *ACCURACY_KEYS]
    frame = frame.with_columns(missing)
    return frame.select(*keys, pl.exclude(*keys, "lineage"), "lineage")


def repeated(records: Iterable[Record], kind: str, keys: dict[str, type[pl.DataType]]) -> list[str]:
    """SHA-256s of the artifacts that several records of ``kind`` measured under the same conditions ``keys``."""
    schema = RUN_KEYS | keys
    measured = Counter(tuple(_conditions(r, schema).items()) for r in records if r.kind == kind)
    found = [str(dict(conditions)["sha256"]) for conditions, count in measured.items() if count > 1]
    return list(dict.fromkeys(found))


def names_of(frame: pl.DataFrame) -> dict[str, str]:
    """Each artifact's name by its SHA-256, as the tables show it: no two have the same."""
    return dict(frame.select("sha256", "artifact").iter_rows())


def _artifacts(records: Sequence[Record]) -> pl.DataFrame:
    lineages = histories(records)
    rows: dict[str, Row] = {}
    for record in records:
        sha256 = str(printable(record.sha256))
        row = rows.setdefault(sha256, {"sha256": sha256, "artifact": _name(record)})
        row.update(_metrics(record, exclude=(*ACCURACY_METRICS, *SPEED_METRICS)))
    ordered = sorted(rows.values(), key=lambda row: len(lineages[row["sha256"]]))
    _tell_apart(ordered)
    for row in ordered:
        row.update(_reestimation(lineages[row["sha256"]]))
        row["arch"] = _arch(lineages[row["sha256"]])
        row["lineage"] = printable(history_text(lineages[row["sha256"]]))
    return _frame(ordered, dict.fromkeys(("sha256", "artifact", "arch", "lineage"), pl.String))


def _arch(lineage: Sequence[Step]) -> str | None:
    """The architecture that the first command which names one was given."""
    options = (step.get("options") for step in lineage)
    named = (given.get("arch") for given in options if isinstance(given, dict))
    return printable(next((arch for arch in named if arch), None))


def _reestimation(lineage: Sequence[Step]) -> Row:
    """Accuracy before and after BatchNorm's statistics were measured anew, by the last step that did."""
    for step in reversed(lineage):
        metrics = step.get("metrics")
        figures = metrics if isinstance(metrics, dict) else {}
        found = {name: float(figures[name]) for name in REESTIMATION if _is_percentage(figures.get(name))}
        if len(found) == len(REESTIMATION):
            return found
    return {}


def _is_percentage(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 100


def _tell_apart(rows: Sequence[Row]) -> None:
    """Two files of one name get the beginning of their hash beside it."""
    names = [row["artifact"] for row in rows]
    for row in rows:
        if names.count(row["artifact"]) > 1:
            row["artifact"] = f"{row['artifact']} ({row['sha256'][:7]})"


def _accuracy_records(records: Iterable[Record]) -> list[Record]:
    measured = [r for r in records if any(name.startswith(ACCURACY_METRICS) for name in r.metrics)]
    evaluated = {r.sha256 for r in measured if r.kind == "eval"}
    return [r for r in measured if r.kind == "eval" or r.sha256 not in evaluated]


def _measured(
    records: Iterable[Record],
    metrics: tuple[str, ...],
    keys: dict[str, type[pl.DataType]],
) -> pl.DataFrame:
    schema = RUN_KEYS | keys | {"precision": pl.String}
    rows = [_conditions(record, schema) | _metrics(record, only=metrics) for record in records]
    return _frame(rows, schema).unique(subset=[*RUN_KEYS, *keys], keep="last", maintain_order=True)


def _conditions(record: Record, schema: dict[str, type[pl.DataType]]) -> Row:
    context = {**record.context, "sha256": record.sha256, "machine": _machine(record)}
    return {name: _condition(context.get(name), dtype) for name, dtype in schema.items()}


def _condition(value: object, dtype: type[pl.DataType]) -> str | int | None:
    if dtype is pl.Int64:
        return value if isinstance(value, int) and abs(value) <= LARGEST else None
    return printable(value)


def _machine(record: Record) -> str | None:
    cpu, instruction_set = record.machine.get("cpu"), record.machine.get("instruction_set")
    return None if cpu is None else f"{cpu} ({instruction_set})" if instruction_set else str(cpu)


def _name(record: Record) -> str:
    return printable(record.artifact) or "?"


def _metrics(record: Record, only: tuple[str, ...] = ("",), exclude: tuple[str, ...] = ()) -> Row:
    """The record's single figures; lists and mappings (per class, confusion) stay where they are."""
    return {
        str(printable(name)): _number(record, name, value)
        for name, value in record.metrics.items()
        if name.startswith(only)
        and not (exclude and name.startswith(exclude))
        and not isinstance(value, list | dict)
    }


def _number(record: Record, name: str, value: object) -> float | int | None:
    if name in RESERVED:
        raise RcompressError(_name(record), f"has a metric called {name}", "measure it again")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RcompressError(_name(record), f"its {name} is {value!r}, not a number", "measure it again")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if abs(value) > LARGEST:
        raise RcompressError(_name(record), f"its {name} is out of range", "measure it again")
    return round(value) if _dtype(name) is pl.Int64 else float(value)


def _dtype(metric: str) -> type[pl.DataType]:
    return pl.Int64 if metric.endswith("_bytes") or metric in WHOLE_NUMBERS else pl.Float64


def _frame(rows: Sequence[Row], keys: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    metrics = dict.fromkeys(name for row in rows for name in row if name not in keys)
    return pl.DataFrame(rows, schema=keys | {name: _dtype(name) for name in metrics})
