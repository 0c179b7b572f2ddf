"""``rcompress eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.naming import record_name
from rcompress.cli.output import Output, print_table
from rcompress.cli.values import floats_per_channel

if TYPE_CHECKING:
    from rcompress.measure.accuracy import Scores


def command(
    source: options.Source,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the record goes (NAME.eval.result.json).")
    ] = None,
    split: Annotated[
        Literal["test", "test-a", "test-b", "validation", "train"] | None,
        typer.Option(help="Default: test; test-b where test-a has chosen something for this model."),
    ] = None,
    backend: options.RunBackend = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the accuracy of each class.")] = False,
    confusion: Annotated[Path | None, typer.Option(help="Draw the confusion matrix into this PNG.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean per channel, for a foreign ONNX file.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel, likewise.")] = None,
    batch_size: options.BatchSize = 250,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the accuracy of any artifact.

    On images that chose nothing, with its 95 % interval; the record goes to NAME.eval.result.json (a --split or
    --backend that is named stands in that name).

    Example: rcompress eval r20.pth
    """
    means, stds = floats_per_channel(mean, "--mean"), floats_per_channel(std, "--std")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_output, write_atomic
        from rcompress.artifacts.records import write_records
        from rcompress.cli.session import foreign_preprocessing, open_for
        from rcompress.data import check_matches
        from rcompress.engines import RunOptions, load_engine
        from rcompress.engines.evaluation import evaluate_engine, evaluation_record

        target = require_output(
            output or record_name(source.name, "-".join(["eval", *filter(None, [split, backend])])), [source]
        )
        if confusion is not None:
            require_output(confusion, [source, target])
        engine = load_engine(source, backend, RunOptions(device, threads, arch))
        preprocessing = foreign_preprocessing(engine.info, dataset, data_dir, means, stds)
        data = open_for(engine.info, preprocessing, dataset, data_dir)
        spec = engine.info.spec
        chosen = split or (spec.report_split if spec else "test")
        scores = evaluate_engine(engine, data.split(chosen), preprocessing, batch_size, out)
        check_matches(
            data, source, preprocessing.input_size, len(scores.confusion)
        )  # a foreign graph tells now
        record = evaluation_record(engine, scores, data.name, chosen, threads, batch_size, arch)
        write_records(target, [record])
        if confusion is not None:
            from rcompress.report.confusion import confusion_png

            write_atomic(confusion, confusion_png(scores.confusion, data.class_names))
        where = f"{engine.info.backend} on {engine.info.device}"
        title = f"{source.name} on {data.name} {chosen} ({scores.images:,} images), {where}"
        out.table(title, ("figure", "value"), _rows(scores), record.to_dict())
        if per_class and not json_:
            print_table("per class", ("class", "images", "top-1 %"), _class_rows(scores, data.class_names))
        for note in record.notes:
            out.note(note)
        out.note(f"record: {target}")


def _rows(scores: Scores) -> list[tuple[str, str]]:
    metrics = scores.metrics()
    interval = f"({metrics['top1_percent_low']:.2f}-{metrics['top1_percent_high']:.2f}, 95 %)"
    rows = [("top-1 %", f"{metrics['top1_percent']:.2f} {interval}")]
    if "top5_percent" in metrics:
        rows.append(("top-5 %", f"{metrics['top5_percent']:.2f}"))
    return [*rows, ("loss", f"{metrics['loss']:.4f}")]


def _class_rows(scores: Scores, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    counts = scores.confusion.sum(axis=1).tolist()
    shares = scores.per_class_percent
    return [
        (name, count, "-" if share is None else f"{share:.2f}")
        for name, count, share in zip(names, counts, shares, strict=True)
    ]
