"""``rcompress report``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rcompress.cli import options
from rcompress.cli.output import Output, print_table

if TYPE_CHECKING:
    from rcompress.report.build import Report
    from rcompress.report.tables import Table
    from rcompress.report.watch import Watched


def command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Record files (*.result.json), training logs (*.log.jsonl), or folders that hold some.",
            show_default=False,
        ),
    ],
    outputs: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .html, .md, .csv, .parquet or .png (default: print); may be repeated.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="Artifact to compare with (default: the one with the shortest history)."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            help="Other people's figures (CSV) to put ours beside; may be repeated.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="Add the MicroNet score: storage and operations over those of a ResNet-18 at 16 bits.",
        ),
    ] = False,
    title: Annotated[str, typer.Option("--title", help="Heading of the report.")] = "Compression report",
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Serve the page on 127.0.0.1 and refresh it as records arrive; Ctrl-C ends."
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port of --watch (default: a free one).")
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put records of eval and bench side by side.

    As a table, plots, one offline HTML page. Sizes, accuracy and speed of an artifact stand in one row.
    Differences are computed against the baseline, and only between figures taken on the same data, or on the
    same machine with the same threads and batch. Beside .html and .md every plot is also written as a PNG.

    A table of published figures (--against) has a line per published row. Its columns: published_id, method,
    command (what makes and measures the row); and any of artifact (name or glob of our file that stands beside
    it), arch and dataset (theirs; where our record tells another, that is said), device (of their speed: cpu, gpu
    or tensorrt), differs (what else differs; empty: nothing of model and data), needs (what a measurement may
    lack), top1_percent, top5_percent, size_bytes, parameters, nonzero, latency_ms, throughput_per_s,
    memory_bytes. Differences from them are computed only where model and data are the same.

    Example: rcompress report *.result.json -o report.html
    """
    if watch and (outputs or json_):
        raise typer.BadParameter(
            "serves a page and writes nothing; leave -o and --json out", param_hint="--watch"
        )
    if port is not None and not watch:
        raise typer.BadParameter("is the port of --watch", param_hint="--port")
    with Output(json_, quiet) as out:
        if watch:
            from rcompress.report.watch import Watched

            _serve(Watched(sources, against or (), baseline, title, score), port, out)
            return
        from rcompress.artifacts.files import require_output
        from rcompress.report.build import build_report, read_sources
        from rcompress.report.published import read_published
        from rcompress.report.training_logs import find_logs, is_log, read_logs
        from rcompress.report.write import require_kind, write_report

        records, read, skipped = read_sources(sources)
        for path in (path for path in skipped if not is_log(path)):
            out.note(f"skipped {path}: not a *.result.json file")
        for path in outputs or ():
            require_output(require_kind(path), [*read, *(against or ())])
        published = read_published(against) if against else None
        report = build_report(records, baseline, title, published, read_logs(find_logs(sources)), score)
        if not outputs:
            _show(report, out)
            return
        pictures, missing = write_report(report, outputs)
        for sentence in missing:
            out.note(sentence)
        out.paths(outputs, pictures=[str(path) for path in pictures], **report.to_dict())


def _serve(watched: Watched, port: int | None, out: Output) -> None:
    from rcompress.report.watch import ReportServer

    with ReportServer(watched, port or 0) as server:
        for source in watched.sources:
            if not source.exists():
                out.note(f"{source}: not there yet; waiting for it")
        typer.echo(server.address)
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()


def _show(report: Report, out: Output) -> None:
    """Each table as two, which fit a terminal better than one, and what their numbers in brackets mean."""
    from rcompress.report.published_table import published_table, unmeasured
    from rcompress.report.tables import table_of

    if out.as_json:
        out.json(report.to_dict())
        return
    _print(table_of(report))
    if (published := published_table(report)) is not None:
        typer.echo("\nBeside published figures")
        _print(published)
        typer.echo("\n".join(f"{identity}: {command}" for identity, command in unmeasured(published)))


def _print(table: Table) -> None:
    from rcompress.report.tables import halves

    typer.echo(table.caption)
    for half in halves(table):
        headers = [column.header for column in half.columns]
        print_table("", headers, half.cells, half.text_columns)
    if table.footnotes:
        typer.echo("\n".join(table.footnotes))
