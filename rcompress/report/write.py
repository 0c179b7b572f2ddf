"""A report as a file; the suffix says which kind."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import polars as pl
from PIL import Image

from rcompress.artifacts.files import write_atomic
from rcompress.errors import RcompressError
from rcompress.report.build import Report
from rcompress.report.gallery import Gallery, gallery
from rcompress.report.markdown import markdown
from rcompress.report.page import page
from rcompress.report.plots import Plot

KINDS = (".html", ".md", ".csv", ".parquet", ".png")
ILLUSTRATED = {".html", ".md"}
DRAWN = {".png", *ILLUSTRATED}
SHEET_COLUMNS = 2


def require_kind(path: Path) -> Path:
    """Return ``path`` if its suffix names a kind of report.

    Raises:
        RcompressError: it does not.
    """
    if path.suffix.lower() not in KINDS:
        raise RcompressError(path, "is no kind of report", f"end its name with {', '.join(KINDS)}")
    return path


def write_report(report: Report, paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Write ``report`` to each of ``paths``: .html, .md, .csv, .parquet, or .png for all plots on one sheet.

    Beside a page or a Markdown file every plot also lies as ``NAME-accuracy-size.png`` and so on. The files
    asked for are written last.

    Returns:
        The pictures written beside them, and a sentence for each plot that the records do not allow.

    Raises:
        RcompressError: a suffix is unknown, there is no plot for a .png, or nothing can be written there.
    """
    kinds = {require_kind(path).suffix.lower() for path in paths}
    shown = gallery(report) if kinds & DRAWN else Gallery([], [])
    contents = [(path, _content(report, shown, path)) for path in paths]
    framed = [path for path in paths if path.suffix.lower() in ILLUSTRATED]
    pictures = {name: plot.png for path in framed for name, plot in _named(shown.plots, path)}
    for path, content in [*pictures.items(), *contents]:
        write_atomic(path, content)
    return list(pictures), shown.missing


def _content(report: Report, shown: Gallery, path: Path) -> bytes:
    match path.suffix.lower():
        case ".html":
            return page(report, *shown).encode()
        case ".md":
            links = [(plot.title, quote(picture.name)) for picture, plot in _named(shown.plots, path)]
            return markdown(report, links).encode()
        case ".csv":
            return _frame(report).write_csv().encode()
        case ".parquet":
            content = io.BytesIO()
            _frame(report).write_parquet(content)
            return content.getvalue()
        case _:
            if not shown.plots:
                raise RcompressError(path, "there is nothing to draw", " ".join(shown.missing))
            return sheet([plot.png for plot in shown.plots])


def _frame(report: Report) -> pl.DataFrame:
    """All figures: beside the published ones where there are any."""
    return report.frame if report.published is None else report.published


def _named(plots: Sequence[Plot], path: Path) -> list[tuple[Path, Plot]]:
    """Where each plot lies beside ``path``."""
    return [(path.with_name(f"{path.stem}-{plot.name}.png"), plot) for plot in plots]


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
