"""Ours beside the published figures: ``artifacts/reference/tables.csv``, and README.md's part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rcompress.report.build import Report, build_report, read_sources
from rcompress.report.published import read_published
from rcompress.report.published_table import NOT_MEASURED, SAME
from rcompress.report.text import MIB, signed, with_spread
from rcompress.report.write import write_report
from tests.result_tables import RECORDS, table

TABLES = RECORDS / "tables.csv"
OURS = ("headline", "tables", "r20.pth.eval.result.json", "bench.result.json")
SOURCES = [RECORDS / name for name in OURS]
FIGURES = sorted((RECORDS.parent / "tables" / "published").glob("*.csv"))
HEADS = [
    "published row",
    "ours",
    "differs",
    "top-1 published (%)",
    "ours (%)",
    "difference",
    "MiB published",
    "ours",
]


def write_tables(path: Path) -> None:
    """Every published row, ours beside it or what it needs and by which command."""
    write_report(_report(), [path])


def published() -> str:
    """The published rows that records of ours stand beside, as Markdown."""
    rows = [row for row in _report().published.to_dicts() if row["published_id"]]
    measured = {(row["published_id"], row["artifact"]): row for row in rows if row["artifact"]}
    lines = [_line(row) for row in measured.values()]
    counts = {bool(row["artifact"]): set() for row in rows}
    for row in rows:
        counts[bool(row["artifact"])].add(row["published_id"])
    return "\n\n".join(
        [
            f"{len(counts[True])} of {len(counts[True] | counts[False])} published rows have records of ours beside "
            "them:",
            table(HEADS, lines),
        ]
    )


def _report() -> Report:
    records, _, _ = read_sources(SOURCES)
    return build_report(records, "r18.pth", published=read_published(FIGURES), score=True)


def _line(row: dict[str, Any]) -> list[str]:
    sizes = [row["published_size_bytes"], row["size_bytes"]]
    difference = row["difference_top1_points"]
    study, _, identity = row["published_id"].split("/")
    return [
        f"{study}: {identity}",
        row["artifact"],
        row["differs"] or SAME,
        _percent(row["published_top1_percent"]),
        with_spread(row, "top1_percent", decimals=2) or NOT_MEASURED,
        "" if difference is None else signed(difference),
        *("" if size is None else f"{size / MIB:.2f}" for size in sizes),
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
