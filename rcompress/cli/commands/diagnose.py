"""``rcompress diagnose``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rcompress.cli import options
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.data import Split
    from rcompress.search.diagnosis import Diagnosis, LayerReport
    from rcompress.search.diagnosis_sides import Side
    from rcompress.search.inner_tensors import Distance

COLUMNS = ["layer", "what", "SNR dB", "alone dB", "cosine", "max error", "top-1 points", "(95 %)", "loss"]


def _picture_or_record(path: Path | None) -> Path | None:
    if path is not None and not path.name.endswith((".png", ".result.json")):
        raise typer.BadParameter(f"{path.name} is neither a .png nor a .result.json")
    return path


def command(
    first: Annotated[Path, typer.Argument(metavar="A", help="The reference: .pth, .onnx or an engine.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="What was made of it, or of the same file.")],
    images: Annotated[
        int, typer.Option("--images", min=1, help="Images on which accuracy is compared, at most.")
    ] = 1000,
    part_below: Annotated[
        float,
        typer.Option("--part-below", help="Signal-to-noise ratio in dB under which two tensors have parted."),
    ] = 10.0,
    plot: Annotated[Path | None, typer.Option(help="Draw the layers into this PNG.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            callback=_picture_or_record,
            help="PCA and t-SNE of what both classifiers see: a .png, or a .result.json for report to draw.",
        ),
    ] = None,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the layers in which two versions of a network differ.

    A and B are of one lineage: a checkpoint and its INT8 graph, before and after export, a graph and its engine.
    Per layer: how far its output lies from A's with all that precedes it (SNR) and with this layer alone being B's
    (alone), and what that layer alone costs in accuracy; the most expensive come first. Images are those on which
    choices are made (validation, or one half of the test split for imported networks).

    Example: rcompress diagnose r32.pth r32-int8.onnx --plot layers.png
    """
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_output, write_atomic
        from rcompress.cli.session import set_threads
        from rcompress.data import matching_dataset
        from rcompress.engines import RunOptions
        from rcompress.search.diagnose import DiagnoseOptions, diagnose
        from rcompress.search.diagnosis_sides import open_side, require_comparable

        for picture in filter(None, (plot, features)):
            require_output(picture, [first, second])
        set_threads(threads)
        run = RunOptions("auto", threads, arch)
        sides = open_side(first, run), open_side(second, run)
        spec = require_comparable(*sides)
        data = matching_dataset(first, spec, dataset, data_dir)
        split = data.split(spec.choice_split)
        found = diagnose(*sides, split, DiagnoseOptions(images, part_below, run), out)
        where = {"a": str(first), "b": str(second), "dataset": data.name, "split": spec.choice_split}
        title = _title(found, where)
        if plot is not None:
            from rcompress.report.layers import diagnosis_png

            write_atomic(plot, diagnosis_png(found, f"{second.name} against {first.name}"))
        if features is not None:
            _write_features(features, sides, spec, split, images, data.name)
        rows = [_row(report) for report in (*found.ranked, found.output)]
        out.table(title, COLUMNS, rows, {**where, **found.to_dict()}, left=2)
        for note in found.notes:
            out.note(note)


def _write_features(
    path: Path, sides: tuple[Side, Side], spec: ModelSpec, split: Split, images: int, data: str
) -> None:
    """Draw both networks' features, or keep them."""
    from rcompress.artifacts.files import write_atomic
    from rcompress.artifacts.records import write_records
    from rcompress.report.embeddings import features_png
    from rcompress.search.feature_points import feature_record
    from rcompress.search.features import feature_pair

    classes = spec.preprocessing.class_names
    pair = feature_pair(*sides, split, images)
    if path.suffix != ".png":
        where = {"dataset": data, "split": spec.choice_split, "classes": list(classes)}
        write_records(path, [feature_record(pair, *sides, where)])
        return
    names = sides[0].path.name, sides[1].path.name
    told = f"{len(pair.labels):,} images of {data} {spec.choice_split}, by their true class"
    write_atomic(path, features_png(pair, classes, names, told))


def _title(found: Diagnosis, where: dict[str, str]) -> str:
    low, high = found.whole.interval_percent
    return (
        f"{where['b']} against {where['a']}: top-1 {found.top1_percent[1]:.2f} against "
        f"{found.top1_percent[0]:.2f} %, "
        f"{found.whole.difference_percent:+.2f} points ({low:+.2f} to {high:+.2f}, 95 %)\n"
        f"on {found.context['images']:,} images of {where['dataset']} {where['split']}, tensors on the first "
        f"{found.context['tensor_images']}\n{found.said}"
    )


def _row(report: LayerReport) -> list[str]:
    cells = [report.layer, report.operator, *_distance(report.distance)]
    cells.insert(3, "" if report.own is None else _decibels(report.own))
    if report.cost is None or report.loss_increase is None:
        return [*cells, "", "", ""]
    low, high = report.cost.interval_percent
    interval = f"({low:+.2f} to {high:+.2f})"
    return [*cells, f"{report.cost.difference_percent:+.2f}", interval, f"{report.loss_increase:+.4f}"]


def _distance(distance: Distance | None) -> list[str]:
    if distance is None:
        return ["", "", ""]
    return [_decibels(distance), f"{distance.cosine:.5f}", f"{distance.max_abs_error:.3g}"]


def _decibels(distance: Distance) -> str:
    return "same" if math.isinf(distance.snr_db) and distance.snr_db > 0 else f"{distance.snr_db:.1f}"
