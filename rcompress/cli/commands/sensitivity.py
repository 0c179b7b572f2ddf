"""``rcompress sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rcompress.cli import options
from rcompress.cli.naming import beside
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.search.sensitivity_file import Sensitivity

READING = "divergence in nats (points of top-1 lost) by share of channels removed"


def command(
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where the curves go (NAME.sensitivity.json)."),
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(help="Where the heat map goes (NAME.sensitivity.png).")
    ] = None,
    importance: options.Importance = "l2",
    images: Annotated[
        int, typer.Option(min=1, help="How many images to compare on, evenly over the classes.")
    ] = 1000,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure what narrowing each group of layers alone does.

    On the images that serve choices: how far the outputs move from the whole network's (KL divergence, which needs
    no labels), and the accuracy. prune --scope adaptive --sensitivity FILE reads the curves again.

    Example: rcompress sensitivity r20.pth
    """
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_output, write_atomic
        from rcompress.cli.opening import open_source
        from rcompress.cli.session import open_settings
        from rcompress.methods.group_tracing import find_groups
        from rcompress.methods.importance import NEEDS_IMAGES, score_channels
        from rcompress.methods.scoring_images import scoring_batches
        from rcompress.report.heatmap import sensitivity_png
        from rcompress.search.sensing import sense
        from rcompress.search.sensitivity_file import write_sensitivity

        target = require_output(output or beside(source, ".sensitivity.json"), [source])
        picture = require_output(heatmap or target.with_suffix(".png"), [source, target])
        settings = open_settings(device, threads, "fp32", seed=seed)
        start = open_source(
            source, arch, dataset, data_dir, out, tuned=False, scored=True, reestimated=False
        ).start
        graph = find_groups(start.module, start.spec.preprocessing.input_size)
        batches = None
        if importance in NEEDS_IMAGES:
            batches = scoring_batches(start.dataset, start.spec.preprocessing, seed)
        scores = score_channels(graph, importance, batches, seed)
        found = sense(source, start, graph, scores, importance, settings, images, progress=out)
        write_sensitivity(target, found)
        write_atomic(picture, sensitivity_png(found.curves, found.top1_percent, _title(found)))
        columns, rows = _table(found)
        out.table(f"{_title(found)}: {READING}", columns, rows, found.to_dict(), left=1)
        for name, reason in graph.kept.items():
            out.note(f"{name} keeps its channels: {reason}")
        out.note(f"curves: {target}, heat map: {picture}")


def _title(found: Sensitivity) -> str:
    where = f"{found.images:,} images of {found.dataset} {found.split}"
    return f"{found.artifact} ({found.top1_percent:.2f} %) on {where}"


def _table(found: Sensitivity) -> tuple[list[str], list[list[str]]]:
    """One row per group; shares are rounded to 5 %, so that groups of all widths share the columns."""
    rows = []
    shares = sorted({_share(c.width, p.kept) for c in found.curves.values() for p in c.points})
    for name, curve in found.curves.items():
        cells = {
            _share(curve.width, point.kept): (
                f"{point.divergence:.3f} ({found.top1_percent - point.top1_percent:.1f})"
            )
            for point in curve.points
        }
        rows.append([name, str(curve.width), *(cells.get(share, "") for share in shares)])
    return ["group", "channels", *(f"-{share} %" for share in shares)], rows


def _share(width: int, kept: int) -> int:
    return round(20 * (1 - kept / width)) * 5
