"""``rcompress cluster``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rcompress.cli import options
from rcompress.cli.finetuning import Finetuning
from rcompress.cli.naming import derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.methods.cluster import ClusteredLayer
    from rcompress.training import Settings
    from rcompress.training.start import Start


def command(
    source: options.Source,
    clusters: Annotated[
        int, typer.Option(min=2, max=256, help="Distinct values that a layer's weights keep.")
    ] = 256,
    output: options.OutputPath = None,
    finetune_epochs: Annotated[
        int, typer.Option(min=0, help="Train the values this long afterwards; weights keep their clusters.")
    ] = 0,
    learning_rate: options.LearningRate = None,
    batch_size: options.TrainingBatchSize = None,
    precision: options.Precision = "auto",
    teacher: options.Teachers = None,
    distill: options.Distill = True,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    resume: options.Resume = False,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Share weights: each layer keeps a few distinct values (k-means).

    The file holds a table and an index per weight, entropy coded: about a quarter of FP32 with 256 values, less with
    fewer. Every command reads it as any other; what changes its weights writes an ordinary file again.

    Example: rcompress cluster r20.pth --clusters 256
    """
    tuning = Finetuning(
        finetune_epochs, learning_rate, batch_size, resume, teacher, distill, temperature, alpha
    )
    if dataset and not finetune_epochs:
        raise typer.BadParameter("goes with fine-tuning", param_hint="--dataset")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.opening import say_sizes
        from rcompress.cli.session import open_settings
        from rcompress.training.start import from_checkpoint

        target = require_checkpoint_output(
            output or derived(source, f"k{clusters}", ".pth"), [source, *(teacher or ())]
        )
        settings = open_settings(device, threads, precision, seed=seed)
        if finetune_epochs:
            start = from_checkpoint(source, arch, dataset, data_dir, out)
            metrics = _tuned(start, source, target, clusters, tuning, settings, arch, out)
        else:
            metrics = _clustered(source, target, clusters, arch, out)
        size = say_sizes(out, source, target)
        out.path(target, metrics=metrics, size_bytes=size)


def _clustered(source: Path, target: Path, clusters: int, arch: str | None, out: Output) -> dict[str, Any]:
    from rcompress.artifacts.checkpoint import write_checkpoint
    from rcompress.artifacts.spec import Step, parent_fields
    from rcompress.methods.cluster import cluster
    from rcompress.models import load_model

    loaded = load_model(source, arch)
    rows = cluster(loaded.module, clusters, out)
    notes = _say(out, rows)
    parent = parent_fields(source, loaded.sha256)
    step = Step("cluster", {"clusters": clusters}, **parent, metrics=_metrics(rows), notes=notes)
    write_checkpoint(target, loaded.spec.with_step(step), loaded.module.state_dict(), packed=True)
    return step.metrics


def _tuned(
    start: Start,
    source: Path,
    target: Path,
    clusters: int,
    tuning: Finetuning,
    settings: Settings,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    from rcompress.cli.session import say_scores
    from rcompress.methods.cluster import CentroidTuning, cluster
    from rcompress.methods.layer_weights import plain
    from rcompress.training.guidance import Guidance
    from rcompress.training.run import write_trained

    rows = cluster(start.module, clusters, out)
    notes = _say(out, rows)
    loss = tuning.loss(start.spec, settings, source, arch)
    held = [row.name for row in rows if row.values <= clusters]  # those of few values as they are, too
    guidance = Guidance(loss, (CentroidTuning(held),))
    outcome = tuning.run(start, settings, target, {"clusters": clusters}, guidance, out)
    plain(outcome.module)
    outcome.metrics.update(_metrics(rows))
    details = {"clusters": clusters, **tuning.details(settings, loss)}
    write_trained(target, "cluster", start.spec, outcome, details, start.parent, notes, packed=True)
    say_scores(out, outcome)
    return outcome.metrics


def _metrics(rows: list[ClusteredLayer]) -> dict[str, Any]:
    return {"clustered_layers": sum(row.reason is None for row in rows)}


def _say(out: Output, rows: list[ClusteredLayer]) -> tuple[str, ...]:
    """A line for each layer that was left alone, and one for the others; the former are kept in the lineage."""
    changed = [row for row in rows if row.reason is None]
    worst = max(changed, key=lambda row: row.relative_error)
    values = [row.values for row in changed]
    out.note(
        f"{len(changed)} layers of {min(values)} to {max(values)} values each; the weights moved by up to "
        f"{worst.relative_error:.2%} of their norm ({worst.name})"
    )
    kept = tuple(f"{row.name} is left as it is: it {row.reason}" for row in rows if row.reason)
    for line in kept:
        out.note(line)
    return kept
