"""A report as a file; the suffix says which kind."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import polars as pl
from PIL import Image

from rcompress.artifacts.files import write_atomic
from rcompress.errors import RcompressError
from rcompress.report.build import Report
from rcompress.report.gallery import gallery
from rcompress.report.markdown import markdown
from rcompress.report.page import page
from rcompress.report.plots import Plot

SHEET_COLUMNS = 2


def require_kind(path: Path) -> Path:
    """Return ``path`` if its suffix names a kind of report.

    Raises:
        RcompressError: it does not.
    """
    if path.suffix.lower() not in WRITERS:
        raise RcompressError(path, "is no kind of report", f"end its name with {', '.join(WRITERS)}")
    return path


def write_report(report: Report, path: Path) -> tuple[list[Path], list[str]]:
    """Write ``report`` to ``path``: .html, .md, .csv, .parquet, or .png for all plots on one sheet.

    Beside a page or a Markdown file every plot also lies as ``NAME-accuracy-size.png`` and so on. The file
    asked for is written last.

    Returns:
        The pictures written beside it, and a sentence for each plot that the records do not allow.

    Raises:
        RcompressError: the suffix is unknown, there is no plot for a .png, or nothing can be written there.
    """
    require_kind(path)
    return WRITERS[path.suffix.lower()](report, path)


Written = tuple[list[Path], list[str]]


def _write_page(report: Report, path: Path) -> Written:
    plots, missing = gallery(report)
    content = page(report, plots, missing).encode()
    pictures = _write_pictures(plots, path)
    write_atomic(path, content)
    return pictures, missing


def _write_markdown(report: Report, path: Path) -> Written:
    plots, missing = gallery(report)
    pictures = _write_pictures(plots, path)
    links = [(plot.title, quote(picture.name)) for plot, picture in zip(plots, pictures, strict=True)]
    write_atomic(path, markdown(report, links).encode())
    return pictures, missing


def _write_csv(report: Report, path: Path) -> Written:
    write_atomic(path, _frame(report).write_csv().encode())
    return [], []


def _write_parquet(report: Report, path: Path) -> Written:
    content = io.BytesIO()
    _frame(report).write_parquet(content)
    write_atomic(path, content.getvalue())
    return [], []


def _frame(report: Report) -> pl.DataFrame:
    """All figures: beside the published ones where there are any."""
    return report.frame if report.published is None else report.published


def _write_sheet(report: Report, path: Path) -> Written:
    plots, missing = gallery(report)
    if not plots:
        raise RcompressError(path, "there is nothing to draw", " ".join(missing))
    write_atomic(path, sheet([plot.png for plot in plots]))
    return [], missing


WRITERS: dict[str, Callable[[Report, Path], Written]] = {
    ".html": _write_page,
    ".md": _write_markdown,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".png": _write_sheet,
}


def sheet(pictures: Sequence[bytes]) -> bytes:
    """Pictures (PNG) side by side on one white PNG, two to a row."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    lines = [images[start : start + SHEET_COLUMNS] for start in range(0, len(images), SHEET_COLUMNS)]
    heights = [max(image.height for image in line) for line in lines]
    column = max(image.width for image in images)
    whole = Image.new("RGB", (column * max(map(len, lines)), sum(heights)), "white")
    for number, line in enumerate(lines):
        for place, image in enumerate(line):
            whole.paste(image, (place * column, sum(heights[:number])))
    content = io.BytesIO()
    whole.save(content, "PNG")
    return content.getvalue()


def _write_pictures(plots: Sequence[Plot], path: Path) -> list[Path]:
    named = [path.with_name(f"{path.stem}-{plot.name}.png") for plot in plots]
    return [write_atomic(picture, plot.png) for picture, plot in zip(named, plots, strict=True)]
