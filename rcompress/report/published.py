"""Other people's figures from a CSV file, and the rows of ours that stand beside them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl

from rcompress.artifacts.files import require_file
from rcompress.errors import RcompressError
from rcompress.report.frame import LARGEST, Row
from rcompress.report.text import printable


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        name: its column in the CSV file; ``published_NAME`` in the joined table.
        ours: the column of our frame that measures the same.
        whole: it counts something.
        difference: the column of ours minus published; None for what depends on the machine, which is never
            the one of a publication.
    """

    name: str
    ours: str
    whole: bool = False
    difference: str | None = None

    @property
    def theirs(self) -> str:
        """Its column in the joined table."""
        return f"published_{self.name}"

    @property
    def dtype(self) -> type[pl.DataType]:
        """Of the published figure and of the difference."""
        return pl.Int64 if self.whole else pl.Float64


FIGURES = (
    Figure("top1_percent", "top1_percent", difference="difference_top1_points"),
    Figure("top5_percent", "top5_percent", difference="difference_top5_points"),
    Figure("size_bytes", "size_bytes", True, "difference_size_bytes"),
    Figure("parameters", "parameters", True, "difference_parameters"),
    Figure("nonzero", "nonzero_parameters", True, "difference_nonzero"),
    Figure("latency_ms", "latency_p50_ms"),
    Figure("throughput_per_s", "throughput_images_per_s"),
    Figure("memory_bytes", "peak_memory_bytes", True),
)
NEEDED = ("published_id", "method", "command")
TEXTS = (*NEEDED, "artifact", "arch", "dataset", "device", "differs", "needs")
COMPARED = {"arch": "a {} here", "dataset": "on {} here"}
DEVICE = "published_device"
SPEED_OF = {
    "cpu": "their speed is a CPU's",
    "gpu": "their speed is a GPU's",
    "tensorrt": "their speed is TensorRT's",
}
"""What ``device`` may be, and what is said where ours is another."""
COLUMNS = (*TEXTS, *(figure.name for figure in FIGURES))
PATTERN = "artifact_pattern"
INDEX = "row of the frame"


def read_published(paths: Sequence[Path]) -> pl.DataFrame:
    """The published rows of CSV files, in their order.

    Their columns: ``published_id``, ``method`` and ``command`` (what makes and measures the row), never empty;
    and any of ``artifact`` (name or glob of our file), ``arch`` and ``dataset`` (theirs; where our record tells
    another, that is said), ``device`` (of their speed: ``cpu``, ``gpu`` or ``tensorrt``), ``differs`` (what
    else differs between the settings; empty: nothing of model and data), ``needs`` (what a measurement may lack),
    and the figures ``top1_percent``, ``top5_percent``, ``size_bytes``, ``parameters``, ``nonzero``,
    ``latency_ms``, ``throughput_per_s``, ``memory_bytes``.

    Returns:
        All those columns; figures, arch, dataset and device as ``published_...``, the artifact's as
        ``artifact_pattern``; an empty text or figure is null.

    Raises:
        RcompressError: a file is missing or malformed; the message names the line.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        before = len(rows)
        for line, cells in _lines(path):
            row = _row(path, line, cells)
            if rows.setdefault(row["published_id"], row) is not row:
                raise _fault(
                    path, line, f"{row['published_id']} has a line already", "give each row its own id"
                )
        if len(rows) == before:
            raise RcompressError(path, "holds no published row", "write one line per row below the header")
    schema = {_column(name): pl.String for name in TEXTS}
    return pl.DataFrame(
        list(rows.values()), schema=schema | {figure.theirs: figure.dtype for figure in FIGURES}
    )


def _column(name: str) -> str:
    """What a text of the file is called beside our own columns."""
    return PATTERN if name == "artifact" else f"published_{name}" if name in (*COMPARED, "device") else name


def beside(frame: pl.DataFrame, published: pl.DataFrame) -> pl.DataFrame:
    """Join our rows to the published rows.

    Args:
        frame: of `with_deltas`.
        published: of `read_published`.

    Returns:
        Per published row, in their order, one row per row of ``frame`` whose artifact its pattern names, or
        one with nulls where there is none, of those with a speed the ones on the device of the published speed
        alone where there are such; then the rows of ``frame`` that stand beside nothing
        (``published_id`` is null). ``published_...`` are their figures, those of ``frame`` keep their names,
        ``difference_...`` is ours minus published and null where ``differs`` says why; ``speed_differs`` says
        what other device their speed is of.
    """
    absent = [figure for figure in FIGURES if figure.ours not in frame.columns]
    frame = frame.with_columns(pl.lit(None, figure.dtype).alias(figure.ours) for figure in absent)
    frame = frame.with_row_index(INDEX)
    pairs = _pairs(frame, published)
    joined = published.join(pairs, on="published_id", how="left", maintain_order="left_right")
    joined = joined.join(frame, on="artifact", how="left", maintain_order="left_right")
    joined = joined.filter(_of_their_device()).with_columns(_speed_differs(), _differs())
    joined = joined.with_columns(_differences())
    rest = frame.join(joined, on=INDEX, how="anti", maintain_order="left")
    whole = pl.concat([joined, rest], how="diagonal")
    theirs = [_column(name) for name in COMPARED]
    first = ["published_id", "method", *(figure.theirs for figure in FIGURES)]
    said = ["differs", "speed_differs", "needs", "command"]
    last = [*(figure.difference for figure in FIGURES if figure.difference), *said]
    return whole.select(*first, pl.exclude(*first, *last, *theirs, DEVICE, PATTERN, INDEX), *last)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The file's lines below the header, as column to cell, with their numbers; empty lines are passed over."""
    try:
        lines = require_file(path).read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise RcompressError(path, "is not UTF-8 text", "save it as CSV in UTF-8") from None
    header = _cells(path, 1, lines[0])
    _check_header(path, header)
    for number, line in enumerate(lines[1:], start=2):
        cells = _cells(path, number, line)
        if not any(cells):
            continue
        if len(cells) != len(header):
            fault = f"has {len(cells)} cells where the header has {len(header)}"
            raise _fault(path, number, fault, "quote a cell that holds a comma, leave out no comma")
        yield number, dict(zip(header, cells, strict=True))


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return [cell.strip() for cells in csv.reader([line], strict=True) for cell in cells]
    except csv.Error as error:
        raise _fault(path, number, f"is no line of CSV ({error})", "close every quote on its line") from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    known = f"the columns are {', '.join(COLUMNS)}"
    for name in header:
        if name not in COLUMNS:
            raise _fault(path, 1, f"{printable(name)!r} is no column of published figures", known)
        if header.count(name) > 1:
            raise _fault(path, 1, f"the column {name} stands there twice", "keep one")
    if absent := [name for name in NEEDED if name not in header]:
        raise _fault(path, 1, f"the column {absent[0]} is missing", known)


def _row(path: Path, line: int, cells: dict[str, str]) -> Row:
    for name in NEEDED:
        if not cells[name]:
            raise _fault(path, line, f"{name} is empty", "every published row has one")
    if cells.get("device", "") not in ("", *SPEED_OF):
        fault = f"its device is {printable(cells['device'])!r}"
        raise _fault(path, line, fault, f"write {', '.join(SPEED_OF)}, or nothing")
    row: Row = {_column(name): printable(cells.get(name) or None) for name in TEXTS}
    return row | {figure.theirs: _number(path, line, figure, cells.get(figure.name)) for figure in FIGURES}


def _number(path: Path, line: int, figure: Figure, cell: str | None) -> float | int | None:
    if not cell:
        return None
    fault = f"its {figure.name} is {printable(cell)!r}"
    try:
        value = int(cell) if figure.whole else float(cell)
    except ValueError:
        kind = "a whole number" if figure.whole else "a number"
        raise _fault(path, line, f"{fault}, not {kind}", "write digits alone, or leave it empty") from None
    highest = 100 if figure.name.endswith("_percent") else LARGEST
    if not math.isfinite(value) or not 0 <= value <= highest:
        raise _fault(path, line, f"{fault}, not between 0 and {highest}", "correct it, or leave it empty")
    return value


def _fault(path: Path, line: int, fault: str, remedy: str) -> RcompressError:
    return RcompressError(f"{path}, line {line}", fault, remedy)


def _pairs(frame: pl.DataFrame, published: pl.DataFrame) -> pl.DataFrame:
    """Which artifact stands beside which published row; of two files of one name, both."""
    artifacts = frame.select("artifact", "sha256").unique(maintain_order=True).rows()
    pairs = [
        (identity, name)
        for identity, pattern in published.select("published_id", PATTERN).rows()
        for name, sha256 in artifacts
        if pattern and fnmatchcase(name.removesuffix(f" ({sha256[:7]})"), pattern)
    ]
    return pl.DataFrame(pairs, schema={"published_id": pl.String, "artifact": pl.String}, orient="row")


def _device() -> pl.Expr:
    """What our speed was taken on, in the words of `SPEED_OF`; null where there is none."""
    of_tensorrt = pl.col("backend").str.starts_with("tensorrt")
    known = pl.when(of_tensorrt).then(pl.lit("tensorrt")).when(pl.col("device") == "cpu").then(pl.lit("cpu"))
    return pl.when(pl.col("device").is_not_null()).then(known.otherwise(pl.lit("gpu")))


def _of_their_device() -> pl.Expr:
    """Whether a row of ours tells no speed, or was taken on the device of the published one, or none was."""
    same = (_device() == pl.col(DEVICE)).fill_null(False)
    return same | _device().is_null() | ~same.any().over("published_id")


def _speed_differs() -> pl.Expr:
    said = pl.col(DEVICE).replace_strict(SPEED_OF, return_dtype=pl.String, default=None)
    return pl.when(_device() != pl.col(DEVICE)).then(said).alias("speed_differs")


def _differs() -> pl.Expr:
    """What the table says, what the records add, and that half a test split is other data than the whole one."""
    other_split = pl.col("split").is_not_null() & (pl.col("split") != "test")
    parts: list[pl.Expr] = [
        pl.when(pl.col(name) != pl.col(_column(name))).then(pl.format(text, name))
        for name, text in COMPARED.items()
    ]
    parts += [pl.col("differs"), pl.when(other_split).then(pl.format("on the split {} here", "split"))]
    said = pl.concat_str(parts, separator="; ", ignore_nulls=True)
    return pl.when(said != "").then(said).alias("differs")


def _differences() -> list[pl.Expr]:
    same = pl.when(pl.col("differs").is_null())
    return [
        same.then(pl.col(figure.ours) - pl.col(figure.theirs)).alias(figure.difference)
        for figure in FIGURES
        if figure.difference
    ]
