"""``rcompress prune``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.naming import derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.methods.prune import PruneOptions, PruneReport
    from rcompress.training import Recipe, Settings
    from rcompress.training.start import Start


def _open_share(value: float) -> float:
    if not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1 (0.6 removes 60 % of the channels)")
    return value


def command(
    source: options.Source,
    ratio: Annotated[
        float, typer.Option(callback=_open_share, help="Share of each layer's channels to remove.")
    ],
    output: options.OutputPath = None,
    importance: Annotated[
        Literal["l1", "l2", "random"], typer.Option(help="Channels of least importance go first.")
    ] = "l2",
    round_to: Annotated[
        int, typer.Option(min=1, help="Keep widths at multiples of this; 1: any width.")
    ] = 16,
    finetune_epochs: Annotated[int, typer.Option(min=0, help="Train this long afterwards.")] = 0,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", min=0, help="Peak rate of fine-tuning.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", min=1, help="Of fine-tuning.")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Of fine-tuning.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed fine-tuning.")] = False,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove channels for real, and fine-tune.

    A channel goes from every layer that shares it; widths stay at multiples that engines run fast.

    Example: rcompress prune r20.pth --ratio 0.6 --finetune-epochs 5
    """
    if not finetune_epochs and (resume or learning_rate or batch_size or dataset):
        raise typer.BadParameter(
            "goes with fine-tuning alone; name its length", param_hint="--finetune-epochs"
        )
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.session import open_settings
        from rcompress.methods.prune import PruneOptions
        from rcompress.training import RECIPES

        chosen = PruneOptions(ratio, importance, round_to, seed)
        target = require_checkpoint_output(
            output or derived(source, f"pruned{round(100 * ratio)}", ".pth"), [source]
        )
        settings = open_settings(device, threads, precision, seed=seed)
        if not finetune_epochs:
            out.path(target, metrics=_cut(source, target, chosen, arch, out))
            return
        recipe = replace(RECIPES["finetune"], epochs=finetune_epochs)
        recipe = replace(recipe, learning_rate=learning_rate or recipe.learning_rate)
        recipe = replace(recipe, batch_size=batch_size or recipe.batch_size)
        start = _start(source, arch, dataset, data_dir, out)
        out.path(target, metrics=_cut_and_tuned(start, target, chosen, recipe, settings, resume, out))


def _start(source: Path, arch: str | None, dataset: str | None, data_dir: Path | None, out: Output) -> Start:
    from rcompress.training.start import from_checkpoint

    return from_checkpoint(source, arch, dataset, data_dir, out)


def _cut(source: Path, target: Path, chosen: PruneOptions, arch: str | None, out: Output) -> dict[str, Any]:
    from rcompress.artifacts.checkpoint import write_checkpoint
    from rcompress.artifacts.spec import Step, parent_fields
    from rcompress.methods.prune import prune
    from rcompress.models import load_model

    loaded = load_model(source, arch)
    report = prune(loaded.module, loaded.spec.preprocessing.input_size, chosen)
    _say(out, report, chosen)
    step = Step("prune", asdict(chosen), **parent_fields(source, loaded.sha256), metrics=_metrics(report))
    write_checkpoint(target, loaded.spec.with_step(step), loaded.module.state_dict())
    return step.metrics


def _cut_and_tuned(
    start: Start,
    target: Path,
    chosen: PruneOptions,
    recipe: Recipe,
    settings: Settings,
    resume: bool,
    out: Output,
) -> dict[str, Any]:
    from rcompress.cli.session import resumable, say_scores
    from rcompress.methods.prune import prune
    from rcompress.training import run_training
    from rcompress.training.run import write_trained

    report = prune(start.module, start.spec.preprocessing.input_size, chosen)
    _say(out, report, chosen)
    origin = {**start.parent, **asdict(chosen)}
    with resumable(out, target):
        outcome = run_training(
            start.module, start.spec, start.dataset, recipe, settings, target, origin, resume, progress=out
        )
    outcome.metrics.update(_metrics(report))
    details = {**asdict(chosen), "finetune": asdict(recipe), "precision": settings.precision}
    write_trained(target, "prune", start.spec, outcome, details, start.parent)
    say_scores(out, outcome)
    return outcome.metrics


def _metrics(report: PruneReport) -> dict[str, Any]:
    return {"parameters": report.parameters[1], "macs": report.macs[1]}


def _say(out: Output, report: PruneReport, chosen: PruneOptions) -> None:
    old, new = report.parameters
    text = f"parameters {old:,} -> {new:,} ({new / old:.1%})"
    if report.macs[0] and report.macs[1]:
        before, after = report.macs[0] / 1e6, report.macs[1] / 1e6
        text += f", MACs {before:,.1f} M -> {after:,.1f} M ({after / before:.1%})"
    out.note(text)
    removed = report.channels_removed_percent
    if abs(removed - 100 * chosen.ratio) > 1:
        out.note(
            f"{removed:.1f} % of the channels are gone, not {100 * chosen.ratio:g} %: "
            f"widths stay at multiples of {chosen.round_to} (--round-to)"
        )
