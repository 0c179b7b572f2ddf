"""``rcompress sparsify``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.finetuning import Finetuning
from rcompress.cli.naming import beside, derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from torch import nn

    from rcompress.artifacts.spec import ModelSpec
    from rcompress.cli.opening import Opened
    from rcompress.methods.sparse_training import SparsePattern, Sparsified, SparsifyRequest
    from rcompress.methods.sparsify import LayerSparsity


def _open_share(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1 (0.75 sets three quarters to zero)")
    return value


def _blocks(value: str | None) -> str | None:
    if value is not None:
        kept, _, block = value.partition(":")
        if not (kept.isdecimal() and block.isdecimal() and 0 < int(kept) < int(block) <= 64):
            raise typer.BadParameter(f"{value!r} is no pattern such as 2:4 (two of four stay)")
    return value


def command(
    source: options.Source,
    sparsity: Annotated[
        float | None, typer.Option(callback=_open_share, help="Share of the weights to set to zero.")
    ] = None,
    nm: Annotated[
        str | None,
        typer.Option("--nm", callback=_blocks, help="N:M, as in 2:4: of M input channels in a row N stay."),
    ] = None,
    filters: Annotated[
        float | None,
        typer.Option(callback=_open_share, help="Share of each convolution's filters to set to zero."),
    ] = None,
    output: options.OutputPath = None,
    scope: Annotated[
        Literal["global", "layer"],
        typer.Option(help="--sparsity: rank the weights of all layers together, or of each alone."),
    ] = "global",
    schedule: Annotated[
        Literal["one-shot", "cubic"],
        typer.Option(help="--sparsity: at once, or growing over the first epochs of fine-tuning."),
    ] = "one-shot",
    linear: Annotated[
        bool, typer.Option("--linear", help="--filters: outputs of linear layers too, but not the classes'.")
    ] = False,
    head: Annotated[
        bool,
        typer.Option("--head", help="--filters: the classes' outputs too; those can then not be predicted."),
    ] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layer, or part of the network, to leave dense; may be repeated.")
    ] = None,
    bn_reestimation: options.BnReestimation = True,
    finetune_epochs: Annotated[
        int, typer.Option(min=0, help="Train this long afterwards; zeros stay zero.")
    ] = 0,
    learning_rate: options.LearningRate = None,
    batch_size: options.TrainingBatchSize = None,
    precision: options.Precision = "auto",
    teacher: options.Teachers = None,
    distill: options.Distill = True,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    resume: options.Resume = False,
    bench: Annotated[
        bool, typer.Option("--bench", help="Time it against the source with every engine that runs here.")
    ] = False,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Set weights to zero in place, and fine-tune.

    Single weights (--sparsity), N of M input channels (--nm; 2:4 is what sparse tensor cores take), or whole filters
    (--filters). The network keeps its shapes and its size; `rcompress prune` really removes channels. Beside the
    checkpoint: NAME.sparsity.png, a bar per layer.

    Example: rcompress sparsify r20.pth --sparsity 0.75 --finetune-epochs 5
    """
    if sum(choice is not None for choice in (sparsity, nm, filters)) != 1:
        raise typer.BadParameter("give one of the three", param_hint="--sparsity, --nm, --filters")
    if filters is None and (linear or head):
        raise typer.BadParameter("go with --filters", param_hint="--linear, --head")
    if sparsity is None and (scope != "global" or schedule != "one-shot"):
        raise typer.BadParameter("go with --sparsity", param_hint="--scope, --schedule")
    if schedule == "cubic" and not finetune_epochs:
        raise typer.BadParameter("grows during fine-tuning; name its length", param_hint="--finetune-epochs")
    tuning = Finetuning(
        finetune_epochs, learning_rate, batch_size, resume, teacher, distill, temperature, alpha
    )
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.opening import open_source
        from rcompress.cli.session import open_settings, resumable
        from rcompress.methods.sparse_training import SparsifyRequest, Tuning, sparsified, zeroed

        request = SparsifyRequest(
            _pattern(sparsity, nm, filters, scope, linear, head),
            schedule,
            tuple(ignore or ()),
            bn_reestimation and schedule == "one-shot",  # while zeros come one by one, BatchNorm follows
        )
        target = require_checkpoint_output(
            output or derived(source, _tag(request), ".pth"), [source, *(teacher or ())]
        )
        settings = open_settings(device, threads, precision, seed=seed)
        opened = open_source(
            source, arch, dataset, data_dir, out, bool(finetune_epochs), False, request.bn_reestimation
        )
        measured = request.bn_reestimation and opened.dataset is not None
        request = replace(request, bn_reestimation=measured)
        loss = tuning.loss(opened.spec, settings, source, arch)
        plan = Tuning(tuning.recipe(), loss, resume) if finetune_epochs else None
        if opened.dataset is None:
            made = zeroed(opened.module, request)
        else:
            with resumable(out, target):
                made = sparsified(opened.start, request, settings, target, plan, out)
        details = {**request.options(), **tuning.details(settings, loss)}
        metrics = _written(opened, target, details, made)
        _say(out, source, target, made)
        timed = _timed(source, opened.spec, made.module, threads, arch, out) if bench else None
        if timed is None:
            out.note("Not timed: most engines multiply zeros like other numbers (--bench measures it).")
        out.path(
            target,
            metrics=metrics,
            layers=[asdict(row) for row in made.table],
            **({} if timed is None else {"speed": timed}),
        )


def _pattern(
    sparsity: float | None,
    nm: str | None,
    filters: float | None,
    scope: Literal["global", "layer"],
    linear: bool,
    head: bool,
) -> SparsePattern:
    from rcompress.methods.sparsify import BlockSparse, Filters, Unstructured

    if sparsity is not None:
        return Unstructured(sparsity, scope)
    if nm is not None:
        kept, block = nm.split(":")
        return BlockSparse(int(kept), int(block))
    assert filters is not None
    return Filters(filters, linear, head)


def _tag(request: SparsifyRequest) -> str:
    """What the default name of the output adds to the source's."""
    chosen = request.options()
    if chosen["pattern"] == "n:m":
        return f"sparse{chosen['kept']}of{chosen['block']}"
    if chosen["pattern"] == "filters":
        return f"filters{round(100 * chosen['share'])}"
    return f"sparse{round(100 * chosen['sparsity'])}"


def _written(opened: Opened, target: Path, details: dict[str, Any], made: Sparsified) -> dict[str, Any]:
    """Write the plot and the checkpoint; returns the step's metrics."""
    from rcompress.artifacts.checkpoint import write_checkpoint
    from rcompress.artifacts.files import write_atomic
    from rcompress.artifacts.spec import Step
    from rcompress.measure.static import module_metrics
    from rcompress.report.sparsity import sparsity_png
    from rcompress.training.run import write_trained

    metrics: dict[str, Any] = dict(module_metrics(made.module, opened.spec.preprocessing.input_size))
    metrics |= made.recovery.metrics() if made.recovery else {}
    notes = tuple(f"{row.name} is dense: {row.reason}" for row in made.table if row.reason)
    write_atomic(beside(target, ".sparsity.png"), sparsity_png(made.table, target.name))
    if made.outcome is None:
        step = Step("sparsify", details, metrics=metrics, notes=notes, **opened.parent)
        write_checkpoint(target, opened.spec.with_step(step), made.module.state_dict())
        return metrics
    made.outcome.metrics.update(metrics)
    write_trained(target, "sparsify", opened.spec, made.outcome, details, opened.parent, notes)
    return made.outcome.metrics


def _say(out: Output, source: Path, target: Path, made: Sparsified) -> None:
    from rcompress.cli.session import say_scores
    from rcompress.measure.size import size_bytes, zipped_bytes

    for line in _table(made.table):
        out.note(line)
    sizes = [f"{size_bytes(path):,} bytes ({zipped_bytes(path):,} zipped)" for path in (source, target)]
    out.note(f"{source.name} {sizes[0]}, {target.name} {sizes[1]}: zeros are stored like other numbers")
    if made.outcome is not None:
        say_scores(out, made.outcome)


def _table(rows: list[LayerSparsity]) -> list[str]:
    """A line for each layer, and one for all."""
    width = max(len(row.name) for row in rows)
    weights, nonzero = sum(row.weights for row in rows), sum(row.nonzero for row in rows)
    return [_line(row, width) for row in rows] + [f"{'all':{width}}  {_share(nonzero, weights)}"]


def _line(row: LayerSparsity, width: int) -> str:
    text = f"{row.name:{width}}  {_share(row.nonzero, row.weights)}"
    if row.zero_filters:
        text += f", {row.zero_filters} of {row.filters} filters"
    if not row.nonzero:
        text += ", nothing passes it any more"
    return f"{text}, dense: {row.reason}" if row.reason else text


def _share(nonzero: int, weights: int) -> str:
    return f"{nonzero:>11,} of {weights:>11,} not zero, {100 * (1 - nonzero / weights):5.1f} % zeros"


def _timed(
    source: Path,
    spec: ModelSpec,
    sparse: nn.Module,
    threads: int,
    arch: str | None,
    out: Output,
) -> list[dict[str, Any]]:
    from rcompress.engines import RunOptions
    from rcompress.methods.sparse_speed import sparse_speed
    from rcompress.models import load_model

    dense = load_model(source, arch).module
    speeds = sparse_speed(dense, sparse, spec, RunOptions("auto", threads), out)
    for speed in speeds:
        out.note(str(speed))
    return [asdict(speed) for speed in speeds]
