"""``rcompress report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rcompress.cli import options
from rcompress.cli.output import Output, print_table

if TYPE_CHECKING:
    from rcompress.report.build import Report


def command(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Record files (*.result.json), or folders that hold some.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="File to write: .html, .md, .csv, .parquet or .png (default: print)."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="Artifact to compare with (default: the one with the shortest history)."
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the report.")] = "Compression report",
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put records of eval and bench side by side.

    As a table, plots, one offline HTML page. Sizes, accuracy and speed of an artifact stand in one row.
    Differences are computed against the baseline, and only between figures taken on the same data, or on the
    same machine with the same threads and batch. Beside .html and .md every plot is also written as a PNG.

    Example: rcompress report *.result.json -o report.html
    """
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_output
        from rcompress.report.build import build_report, read_sources
        from rcompress.report.write import require_kind, write_report

        records, read, skipped = read_sources(sources)
        for path in skipped:
            out.note(f"skipped {path}: not a *.result.json file")
        if output is not None:
            require_output(require_kind(output), read)
        report = build_report(records, baseline, title)
        if output is None:
            _show(report, out)
            return
        pictures, missing = write_report(report, output)
        for sentence in missing:
            out.note(sentence)
        out.path(output, pictures=[str(path) for path in pictures], **report.to_dict())


def _show(report: Report, out: Output) -> None:
    """Two tables, which fit a terminal better than the one, and what their numbers in brackets mean."""
    from rcompress.report.tables import halves, table_of

    if out.as_json:
        out.json(report.to_dict())
        return
    table = table_of(report)
    typer.echo(table.caption)
    for half in halves(table):
        headers = [column.header for column in half.columns]
        print_table("", headers, half.cells, half.text_columns)
    if table.footnotes:
        typer.echo("\n".join(table.footnotes))
