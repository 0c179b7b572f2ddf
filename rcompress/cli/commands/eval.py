"""``rcompress eval``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.naming import record_name
from rcompress.cli.output import Output, print_table
from rcompress.cli.values import floats_per_channel
from rcompress.errors import RcompressError

if TYPE_CHECKING:
    from rcompress.artifacts.records import Record
    from rcompress.artifacts.spec import Preprocessing
    from rcompress.data import Dataset
    from rcompress.engines import Engine
    from rcompress.engines.evaluation import Judged
    from rcompress.measure.paired import Paired

SplitName = Literal["test", "test-a", "test-b", "validation", "train"]
Means = tuple[float, ...] | None


def command(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Any number of artifacts; differences are to the first.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="A .json file for all records, or a folder for NAME.eval.result.json of each (this one).",
        ),
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(help="Default: test; test-b where test-a has chosen something for one of them."),
    ] = None,
    backend: options.RunBackend = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the accuracy of each class.")] = False,
    confusion: Annotated[
        Path | None, typer.Option(help="Draw the confusion matrix of one artifact into this PNG.")
    ] = None,
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
    --backend that is named stands in that name) unless -o names a file. Of several, on the same images: each one's
    difference to the first with the interval that counts, that of pairs.

    Example: rcompress eval r20.pth r20-int8.xml
    """
    means, stds = floats_per_channel(mean, "--mean"), floats_per_channel(std, "--std")
    if confusion is not None and len(sources) > 1:
        raise typer.BadParameter("draws one artifact alone", param_hint="--confusion")
    with Output(json_, quiet) as out, ExitStack() as stack:
        from rcompress.artifacts.files import require_output
        from rcompress.artifacts.records import write_records
        from rcompress.engines import RunOptions, load_engine
        from rcompress.engines.evaluation import evaluation_record, judge_engine

        targets = _targets(sources, output, "-".join(["eval", *filter(None, [split, backend])]))
        for target in targets:
            require_output(target, sources)
        if confusion is not None:
            require_output(confusion, [*sources, *targets])
        run = RunOptions(device, threads, arch)
        engines = [stack.enter_context(closing(load_engine(source, backend, run))) for source in sources]
        subjects = _subjects(engines, dataset, data_dir, means, stds)
        chosen = split or _split_of_all(engines)
        answers, records = [], []
        written: dict[Path, list[Record]] = {target: [] for target in targets}
        for target, subject in zip(targets, subjects, strict=True):
            engine, data = subject.engine, subject.data
            judged = judge_engine(engine, data.split(chosen), subject.preprocessing, batch_size, out)
            subject.require_classes(len(judged.scores.confusion))  # a foreign graph tells now
            answers.append(judged)
            records.append(evaluation_record(engine, judged.scores, data.name, chosen, run, batch_size))
            written[target].append(records[-1])
            if len(written[target]) == targets.count(target):  # whole or not at all
                write_records(target, written[target])
        if confusion is not None:
            _draw(confusion, answers[0], subjects[0].data)
        _say(out, records, answers)
        if per_class and not json_:
            _say_classes(answers, records, subjects[0].data.class_names)
        for note in dict.fromkeys(note for record in records for note in record.notes):
            out.note(note)
        for target in written:
            out.note(f"record: {target}")


@dataclass(frozen=True)
class _Subject:
    """An engine, how its images are prepared, and which they are."""

    engine: Engine
    preprocessing: Preprocessing
    data: Dataset

    def require_classes(self, outputs: int) -> None:
        from rcompress.data import check_matches

        check_matches(self.data, self.engine.info.path, self.preprocessing.input_size, outputs)


def _targets(sources: Sequence[Path], output: Path | None, kind: str) -> list[Path]:
    """Where each artifact's record goes: into one file, or a folder, which is made where there is none."""
    if output is not None and (output.is_file() or output.suffix == ".json"):
        return [output] * len(sources)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    targets = [(output or Path()) / record_name(source.name, kind) for source in sources]
    for target, source in zip(targets, sources, strict=True):
        if targets.count(target) > 1:
            raise RcompressError(
                source, f"is not the only {source.name} here", "name one file for all records with -o"
            )
    return targets


def _subjects(
    engines: Sequence[Engine], dataset: str | None, data_dir: Path | None, means: Means, stds: Means
) -> list[_Subject]:
    """All of them on one dataset, which is read once for each size of the images."""
    from rcompress.cli.session import foreign_preprocessing, open_for

    subjects: list[_Subject] = []
    for engine in engines:
        preprocessing = foreign_preprocessing(engine.info, dataset, data_dir, means, stds)
        opened = open_for(engine.info, preprocessing, dataset, data_dir)
        known = [subject.data for subject in subjects]
        if known and opened.name != known[0].name:
            raise RcompressError(
                engine.info.path,
                f"is of {opened.name}, {engines[0].info.path.name} of {known[0].name}",
                "evaluate them apart, or name one --dataset",
            )
        data = next((each for each in known if each.input_size == opened.input_size), opened)
        subjects.append(_Subject(engine, preprocessing, data))
    return subjects


def _split_of_all(engines: Sequence[Engine]) -> str:
    """The images that chose nothing for any of them."""
    splits = [engine.info.spec.report_split if engine.info.spec else "test" for engine in engines]
    return next((split for split in splits if split != "test"), "test")


def _draw(path: Path, judged: Judged, data: Dataset) -> None:
    from rcompress.artifacts.files import write_atomic
    from rcompress.report.confusion import confusion_png

    write_atomic(path, confusion_png(judged.scores.confusion, data.class_names))


def _say(out: Output, records: Sequence[Record], answers: Sequence[Judged]) -> None:
    """One artifact's figures line by line; several in a table, beside the first."""
    from rcompress.artifacts.records import SCHEMA
    from rcompress.measure.paired import paired

    first, context = records[0], records[0].context
    where = f"{context['dataset']} {context['split']} ({context['images']:,} images)"
    if len(records) == 1:
        title = f"{first.artifact} on {where}, {context['backend']} on {context['device']}"
        out.table(title, ("figure", "value"), _figures(first.metrics), first.to_dict())
        return
    pairs = [paired(judged.correct, answers[0].correct) for judged in answers]
    compared = [
        {"artifact": record.artifact, "lost": pair.lost, "gained": pair.gained, **pair.metrics()}
        for record, pair in zip(records[1:], pairs[1:], strict=True)
    ]
    told = {"schema": SCHEMA, "records": [record.to_dict() for record in records], "against_first": compared}
    columns = ("artifact", "backend", "top-1 %", "(95 %)", "points", "(95 %)", "lost", "gained", "loss")
    rows = [_row(record, pair) for record, pair in zip(records, pairs, strict=True)]
    title = f"{where}; points, images lost and gained: against {first.artifact}"
    out.table(title, columns, rows, told, left=2)


def _interval(metrics: dict[str, Any]) -> str:
    return f"{metrics['top1_percent_low']:.2f}-{metrics['top1_percent_high']:.2f}"


def _figures(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("top-1 %", f"{metrics['top1_percent']:.2f} ({_interval(metrics)}, 95 %)")]
    if "top5_percent" in metrics:
        rows.append(("top-5 %", f"{metrics['top5_percent']:.2f}"))
    return [*rows, ("loss", f"{metrics['loss']:.4f}")]


def _row(record: Record, pair: Paired) -> list[str]:
    metrics, (low, high) = record.metrics, pair.interval_percent
    return [
        record.artifact,
        record.context["backend"],
        f"{metrics['top1_percent']:.2f}",
        _interval(metrics),
        f"{pair.difference_percent:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        str(pair.lost),
        str(pair.gained),
        f"{metrics['loss']:.4f}",
    ]


def _say_classes(answers: Sequence[Judged], records: Sequence[Record], names: Sequence[str]) -> None:
    counts = answers[0].scores.confusion.sum(axis=1).tolist()
    shares = [judged.scores.per_class_percent for judged in answers]
    rows = [
        (name, count, *("-" if share is None else f"{share:.2f}" for share in row))
        for name, count, *row in zip(names, counts, *shares, strict=True)
    ]
    heads = [record.artifact for record in records] if records[1:] else ["top-1 %"]
    print_table("per class", ("class", "images", *heads), rows)
