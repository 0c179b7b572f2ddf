"""The table as people read it: columns with units, and only those that say something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rcompress.report.build import Report
from rcompress.report.frame import ACCURACY_KEYS, SPEED_KEYS, Row
from rcompress.report.score import SCORE
from rcompress.report.text import KIB, MIB, in_words, signed, significant, with_spread

SPEED_FIGURES = (
    "latency_p50_ms",
    "speedup",
    "throughput_images_per_s",
    "peak_memory_bytes",
    "energy_j_per_image",
    "published_latency_ms",
    "published_throughput_per_s",
    "published_memory_bytes",
)
ABSENT = "–"
SMALL_FILE_BYTES = 100 * KIB


@dataclass(frozen=True)
class Column:
    """One column: its header with the unit, the frame's column it sorts by, how a cell is written."""

    header: str
    key: str
    cell: Callable[[Row], str]
    text: bool = False


@dataclass(frozen=True)
class Table:
    """Cells ready to be shown.

    Attributes:
        columns: those that say something; text first, then figures.
        rows: the frame's rows, one for one.
        cells: per row, one string per column.
        caption: the conditions that all rows share, in words.
        footnotes: what the numbers in the cells refer to, then what the records say of themselves.
    """

    columns: list[Column]
    rows: list[Row]
    cells: list[list[str]]
    caption: str
    footnotes: list[str]

    @property
    def text_columns(self) -> int:
        """How many of the columns are text."""
        return sum(column.text for column in self.columns)


def table_of(report: Report) -> Table:
    """The report's frame as a table for people.

    Conditions that are the same everywhere move to the caption, columns without a value are left out, and a
    delta that would compare unlike things is a footnote's number instead.
    """
    rows = report.frame.to_dicts()
    reasons = _reasons(rows)
    columns = [column for column in _columns(rows, reasons) if _says_something(column, rows)]
    return Table(
        columns=columns,
        rows=rows,
        cells=[[column.cell(row) for column in columns] for row in rows],
        caption=_caption(report, rows),
        footnotes=[f"[{number}] {reason}" for reason, number in reasons.items()] + report.notes,
    )


def halves(table: Table) -> list[Table]:
    """The same as two narrower tables, one of sizes and accuracy, one of speed; equal lines stand once."""
    quality = [c for c in table.columns if c.key not in SPEED_KEYS and c.key not in SPEED_FIGURES]
    speed = [c for c in table.columns if c.key not in ACCURACY_KEYS and (c.text or c.key in SPEED_FIGURES)]
    return [_narrowed(table, columns) for columns in (quality, speed) if not all(c.text for c in columns)]


def without_column(table: Table, key: str) -> Table:
    """The same table without the column of ``key``."""
    kept = [place for place, column in enumerate(table.columns) if column.key != key]
    cells = [[line[place] for place in kept] for line in table.cells]
    return replace(table, columns=[table.columns[place] for place in kept], cells=cells)


def _narrowed(table: Table, columns: list[Column]) -> Table:
    places = [table.columns.index(column) for column in columns]
    distinct: dict[tuple[str, ...], Row] = {}
    for row, cells in zip(table.rows, table.cells, strict=True):
        chosen = tuple(cells[place] for place in places)
        if any(cell.strip(ABSENT) for cell, column in zip(chosen, columns, strict=True) if not column.text):
            distinct.setdefault(chosen, row)
    cells_left = [list(cells) for cells in distinct]
    return replace(table, columns=columns, rows=list(distinct.values()), cells=cells_left)


def _reasons(rows: Sequence[Row]) -> dict[str, int]:
    """Why deltas are missing, numbered in the order of appearance."""
    numbered: dict[str, int] = {}
    for row in rows:
        for key, what in (("top1_difference_reason", "no difference"), ("speedup_reason", "no speed-up")):
            if row[key]:
                numbered.setdefault(f"{what}: {row[key]}", len(numbered) + 1)
    return numbered


def _columns(rows: Sequence[Row], reasons: dict[str, int]) -> list[Column]:
    """All there are, as they are shown: size, accuracy and speed first, then what explains them."""
    unit, unit_bytes = size_unit(rows)

    def size(row: Row) -> str:
        return "" if row["size_bytes"] is None else f"{row['size_bytes'] / unit_bytes:,.2f}"

    def difference(row: Row) -> str:
        if row["top1_difference_reason"]:
            return f"[{reasons['no difference: ' + row['top1_difference_reason']]}]"
        return "" if row["top1_difference_points"] is None else signed(row["top1_difference_points"])

    def speedup(row: Row) -> str:
        if row["speedup_reason"]:
            return f"[{reasons['no speed-up: ' + row['speedup_reason']]}]"
        return _times(row["speedup"])

    return [
        *(text_column(*names) for names in TEXT_COLUMNS.items()),
        Column(f"size ({unit})", "size_bytes", size),
        Column("compression", "compression_ratio", lambda row: _times(row["compression_ratio"])),
        Column("top-1 (%)", "top1_percent", lambda row: with_spread(row, "top1_percent", decimals=2)),
        Column("difference (points)", "top1_difference_points", difference),
        Column("latency p50 (ms)", "latency_p50_ms", lambda row: with_spread(row, "latency_p50_ms")),
        Column("speed-up", "speedup", speedup),
        Column("images/s", "throughput_images_per_s", lambda row: _scaled(row, "throughput_images_per_s", 1)),
        Column("memory (MiB)", "peak_memory_bytes", lambda row: _scaled(row, "peak_memory_bytes", MIB)),
        Column(
            "energy (mJ/image)", "energy_j_per_image", lambda row: _scaled(row, "energy_j_per_image", 1e-3)
        ),
        Column("parameters (k)", "parameters", lambda row: _scaled(row, "parameters", 1e3)),
        Column("non-zero (k)", "nonzero_parameters", lambda row: _scaled(row, "nonzero_parameters", 1e3)),
        Column("MACs (M)", "macs", lambda row: _scaled(row, "macs", 1e6)),
        Column("MicroNet score", SCORE, lambda row: _scaled(row, SCORE, 1)),
        Column(
            "before, after BatchNorm anew (%)",
            "top1_percent_after_reestimation",
            lambda row: _before_after(
                row, "top1_percent_before_reestimation", "top1_percent_after_reestimation"
            ),
        ),
    ]


TEXT_COLUMNS = {
    "artifact": "artifact",
    "backend": "backend",
    "precision": "precision",
    "machine": "machine",
    "device": "device",
    "threads": "threads",
    "batch_size": "batch",
    "transfers": "transfers",
    "dataset": "dataset",
    "split": "split",
    "images": "images",
}
NAMES_A_ROW = ("artifact", "backend", "precision")


def text_column(key: str, header: str) -> Column:
    """A column of names or conditions."""
    return Column(header, key, lambda row: "" if row[key] is None else str(row[key]), text=True)


def _says_something(column: Column, rows: Sequence[Row]) -> bool:
    values = {row.get(column.key) for row in rows} - {None}
    if column.text and column.key not in NAMES_A_ROW:
        return len(values) > 1
    if column.key == "nonzero_parameters":
        return any(row[column.key] not in (None, row["parameters"]) for row in rows)
    reason = {"top1_difference_points": "top1_difference_reason", "speedup": "speedup_reason"}.get(column.key)
    return bool(values) or bool(reason and any(row[reason] for row in rows))


def _caption(report: Report, rows: Sequence[Row]) -> str:
    """The baseline and the conditions that every row with such a figure shares."""
    backends = {row["backend"] for row in rows if row["artifact"] == report.baseline}
    backend = f" ({report.baseline_backend or 'unknown'})" if len(backends) > 1 else ""
    return "; ".join([f"Baseline: {report.baseline}{backend}", *shared_conditions(rows)]) + "."


def shared_conditions(rows: Sequence[Row]) -> list[str]:
    """What accuracy, and what speed, was measured on in every row that has one."""
    accuracy = in_words({key: _only(rows, key) for key in ACCURACY_KEYS})
    speed = in_words({key: _only(rows, key) for key in SPEED_KEYS})
    return [f"{what} on {said}" for what, said in (("accuracy", accuracy), ("speed", speed)) if said]


def _only(rows: Sequence[Row], key: str) -> str | int | None:
    values = {row[key] for row in rows} - {None}
    return values.pop() if len(values) == 1 else None


def size_unit(rows: Sequence[Row], keys: Sequence[str] = ("size_bytes",)) -> tuple[str, int]:
    """KiB where a file would otherwise be a hundredth of a MiB."""
    smallest = min((row[key] for row in rows for key in keys if row[key] is not None), default=MIB)
    return ("KiB", KIB) if smallest < SMALL_FILE_BYTES else ("MiB", MIB)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:,.2f}x"


def _before_after(row: Row, before: str, after: str) -> str:
    return "" if row.get(after) is None else f"{row[before]:.2f}, {row[after]:.2f}"


def _scaled(row: Row, key: str, unit: float) -> str:
    value = row.get(key)
    return "" if value is None else significant(value / unit)
