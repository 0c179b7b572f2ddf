"""Ours beside published, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import polars as pl

from rcompress.report.build import Report
from rcompress.report.frame import Row
from rcompress.report.published import FIGURES, Figure
from rcompress.report.tables import (
    ABSENT,
    TEXT_COLUMNS,
    Column,
    Table,
    shared_conditions,
    size_unit,
    text_column,
)
from rcompress.report.text import MIB, signed, significant, with_spread

NOT_MEASURED = "not measured"
SAME = "same model and data"
COMPARISON = "comparison"
OURS_ALWAYS = ("top1_percent", "size_bytes", "parameters", "latency_ms")
ALWAYS = ("published_id", "method", "artifact", COMPARISON)


@dataclass(frozen=True)
class Shown:
    """How a figure is written: its name, its unit, what that divides by, decimals (None: significant digits)."""

    name: str
    unit: str
    divisor: float = 1
    decimals: int | None = None

    def text(self, value: float) -> str:
        """The figure in its unit."""
        scaled = value / self.divisor
        if self.decimals is not None:
            return f"{scaled:,.{self.decimals}f}"
        shown = significant(scaled, 4)
        return shown.rstrip("0").rstrip(".") if "." in shown else shown

    def difference(self, value: float) -> str:
        """The same for ours minus published, with its sign."""
        return signed(value / self.divisor, 2 if self.decimals is None else self.decimals)


def published_table(report: Report) -> Table | None:
    """Every published row, ours beside it, and what is the same or differs; None without published rows.

    A row that nothing of ours stands beside says what a measurement needs. What all ids begin with, up to a slash,
    stands in the caption.
    """
    if report.published is None:
        return None
    rows = report.published.filter(pl.col("published_id").is_not_null()).to_dicts()
    for row in rows:
        row[COMPARISON] = _comparison(row)
    study = _study(rows)
    columns = [column for column in _columns(rows, study) if _says_something(column, rows)]
    return Table(
        columns=columns,
        rows=rows,
        cells=[[column.cell(row) for column in columns] for row in rows],
        caption=": ".join(filter(None, [study, _caption(rows)])),
        footnotes=[],
    )


def unmeasured(table: Table) -> list[tuple[str, str]]:
    """The published rows that nothing of ours stands beside: (id, command that would measure it)."""
    return [(row["published_id"], row["command"]) for row in table.rows if row["artifact"] is None]


def _study(rows: Sequence[Row]) -> str:
    """What all ids begin with, up to a slash."""
    levels = zip(*(row["published_id"].split("/")[:-1] for row in rows), strict=False)
    return "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))


def _comparison(row: Row) -> str:
    """Whether the row is measured, what differs, and what the figures that are missing need."""
    needed = f"needed: {row['needs']}" if row["needs"] else ""
    if row["artifact"] is None:
        return f"{NOT_MEASURED}; {needed or 'no record of it yet'}"
    whole = all(row[figure.ours] is not None for figure in FIGURES if row[figure.theirs] is not None)
    missing = needed if not whole or row["speed_differs"] else None
    return "; ".join(filter(None, [row["differs"] or SAME, row["speed_differs"], missing]))


def _caption(rows: Sequence[Row]) -> str:
    identities = {row["published_id"] for row in rows}
    measured = {row["published_id"] for row in rows if row["artifact"] is not None}
    counted = f"{len(measured)} of {len(identities)} published rows have records of ours beside them"
    return "; ".join([counted, *(f"our {said}" for said in shared_conditions(rows))]) + "."


def _columns(rows: Sequence[Row], study: str) -> list[Column]:
    unit, unit_bytes = size_unit(rows, ("size_bytes", "published_size_bytes"))
    shown = {
        "top1_percent": Shown("top-1", "%", decimals=2),
        "top5_percent": Shown("top-5", "%", decimals=2),
        "size_bytes": Shown("size", unit, unit_bytes, 2),
        "parameters": Shown("parameters", "M", 1e6),
        "nonzero": Shown("non-zero", "M", 1e6),
        "latency_ms": Shown("latency", "ms"),
        "throughput_per_s": Shown("images/s", ""),
        "memory_bytes": Shown("memory", "MiB", MIB),
    }
    conditions = {key: header for key, header in TEXT_COLUMNS.items() if key != "artifact"}
    return [
        Column("published row", "published_id", _identity(study), text=True),
        text_column("method", "method"),
        Column("our artifact", "artifact", lambda row: row["artifact"] or ABSENT, text=True),
        text_column(COMPARISON, COMPARISON),
        *(text_column(*names) for names in conditions.items()),
        *(
            column
            for figure in FIGURES
            if figure.name in OURS_ALWAYS or any(row[figure.theirs] is not None for row in rows)
            for column in _figure_columns(figure, shown[figure.name])
        ),
    ]


def _identity(study: str) -> Callable[[Row], str]:
    """The id below ``study``."""
    return lambda row: str(row["published_id"]).removeprefix(f"{study}/")


def _figure_columns(figure: Figure, shown: Shown) -> list[Column]:
    """Theirs, ours, and the difference where the figure has one."""
    unit = f" ({shown.unit})" if shown.unit else ""
    change = "points" if shown.unit == "%" else shown.unit
    columns = [
        Column(f"{shown.name} published{unit}", figure.theirs, _theirs(figure, shown)),
        Column(f"{shown.name} ours{unit}", figure.ours, _ours(figure, shown)),
    ]
    if figure.difference:
        header = f"{shown.name} difference ({change})"
        columns.append(Column(header, figure.difference, _difference(figure.difference, shown)))
    return columns


def _theirs(figure: Figure, shown: Shown) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row[figure.theirs]
        return ABSENT if value is None else shown.text(value)

    return cell


def _ours(figure: Figure, shown: Shown) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row[figure.ours]
        if value is None:
            return ABSENT if row[figure.theirs] is None else NOT_MEASURED
        spread = with_spread(row, figure.ours, 1 / shown.divisor, shown.decimals)
        return spread if " " in spread else shown.text(value)

    return cell


def _difference(key: str, shown: Shown) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        return ABSENT if row[key] is None else shown.difference(row[key])

    return cell


def _says_something(column: Column, rows: Sequence[Row]) -> bool:
    """As in the main table: a condition that all rows share stands in the caption."""
    if column.key in ALWAYS:
        return True
    if not column.text:
        return any(column.cell(row) != ABSENT for row in rows)
    values = {row[column.key] for row in rows} - {None}
    return len(values) > 1 or bool(values and column.key in ("backend", "precision"))
