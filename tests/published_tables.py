"""Ours beside the published figures: ``artifacts/reference/tables.csv``, and README.md's part of it."""

from __future__ import annotations

from pathlib import Path

from rcompress.report.build import Report, build_report, read_sources
from rcompress.report.published import read_published
from rcompress.report.published_table import COMPARISON, published_table
from rcompress.report.write import write_report
from tests.result_tables import RECORDS, table

TABLES = RECORDS / "tables.csv"
OURS = ("headline", "tables", "r20.pth.eval.result.json", "bench.result.json")
SOURCES = [RECORDS / name for name in OURS]
FIGURES = sorted((RECORDS.parent / "tables" / "published").glob("*.csv"))
SHOWN = (
    "published_id",
    "artifact",
    COMPARISON,
    "published_top1_percent",
    "top1_percent",
    "difference_top1_points",
    "published_size_bytes",
    "size_bytes",
)


def write_tables(path: Path) -> None:
    """Every published row, ours beside it or what it needs and by which command."""
    write_report(_report(), [path])


def published() -> str:
    """The published rows of the same network and data as ours, as Markdown, and how many more were measured."""
    whole = published_table(_report())
    columns = [column for key in SHOWN for column in whole.columns if column.key == key]
    measured = {(row["published_id"], row["artifact"]): row for row in whole.rows if row["artifact"]}
    alike = [row for row in measured.values() if row["difference_top1_points"] is not None]
    others = len({row["published_id"] for row in measured.values()} - {row["published_id"] for row in alike})
    lines = [[column.cell(row) for column in columns] for row in alike]
    more = f"{others} more rows were measured with another network or other data: they stand in tables.csv."
    return "\n\n".join([whole.caption, table([column.header for column in columns], lines), more])


def _report() -> Report:
    records, _, _ = read_sources(SOURCES)
    return build_report(records, "r18.pth", published=read_published(FIGURES), score=True)
