"""``rcompress prune``."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from rcompress.cli import options, targeting
from rcompress.cli.finetuning import Finetuning
from rcompress.cli.iterating import StepRecipe, Steps, iteration, pruned_in_steps
from rcompress.cli.naming import derived
from rcompress.cli.output import Output, launched
from rcompress.cli.targeting import Aim, asked_for, fitted

if TYPE_CHECKING:
    from pathlib import Path

    from rcompress.cli.opening import Opened
    from rcompress.cli.pruning import Decision
    from rcompress.methods.channel_groups import ChannelGraph
    from rcompress.methods.prune import PruneOptions, PruneReport
    from rcompress.search.fitting import Request
    from rcompress.training import Settings


def _open_share(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1 (0.6 removes 60 % of the channels)")
    return value


def _multiple(value: str | None) -> str | None:
    if value not in (None, "auto") and not (value.isdecimal() and int(value) > 0):
        raise typer.BadParameter(f"{value!r} is neither a multiple such as 16 nor auto")
    return value


def command(
    source: options.Source,
    ratio: Annotated[
        float | None, typer.Option(callback=_open_share, help="Share of the channels to remove.")
    ] = None,
    from_mask: Annotated[
        bool,
        typer.Option("--from-mask", help="Remove the filters that are zero (see sparsify --filters)."),
    ] = False,
    target_macs: targeting.TargetMacs = None,
    target_params: targeting.TargetParams = None,
    target_size: targeting.TargetSize = None,
    target_latency: targeting.TargetLatency = None,
    backend: targeting.LatencyBackend = None,
    int8: targeting.Int8 = False,
    max_drop: targeting.MaxDrop = None,
    output: options.OutputPath = None,
    importance: options.Importance = "l2",
    scope: targeting.Scope = "local",
    sensitivity: targeting.SensitivityFile = None,
    keep_residual: Annotated[
        bool, typer.Option("--keep-residual", help="Leave channels that cross residual additions.")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Layer, or part of the network, whose outputs stay; may be repeated."),
    ] = None,
    round_to: Annotated[
        str | None,
        typer.Option(
            callback=_multiple,
            help="Keep widths at multiples of this (16; 1 with --from-mask); auto: what --backend runs fastest "
            "here, measured.",
        ),
    ] = None,
    bn_reestimation: options.BnReestimation = True,
    steps: Steps = None,
    recipe: StepRecipe = None,
    finetune_epochs: Annotated[
        int, typer.Option(min=0, help="Train this long afterwards, with --steps after each.")
    ] = 0,
    learning_rate: options.LearningRate = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", "-b", min=1, help="Of fine-tuning; with --target-latency of each timed call (1)."
        ),
    ] = None,
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
    """Remove channels for real, and fine-tune.

    A channel goes from every layer that shares it; widths stay at multiples that engines run fast. What cannot be
    pruned is named, with the reason. taylor, hessian and activation look at training images.

    Example: rcompress prune r20.pth --ratio 0.6 --finetune-epochs 5
    """
    planned = iteration(recipe, steps, ratio, finetune_epochs)
    ratio = planned.ratio
    asked = asked_for(target_macs, target_params, target_size, target_latency, max_drop)
    if sum((ratio is not None, from_mask, asked is not None)) != 1:
        raise typer.BadParameter("give one of them", param_hint="--ratio, --target-..., --from-mask")
    if from_mask and (importance != "l2" or scope != "local"):
        raise typer.BadParameter("go with --ratio or a target", param_hint="--importance, --scope")
    if max_drop is not None and not bn_reestimation:
        raise typer.BadParameter(
            "--max-drop measures networks whose BatchNorm is re-estimated", param_hint="--no-bn-reestimation"
        )
    auto = round_to == "auto"
    timed_on = None if auto and target_latency is None else backend
    aim = Aim(asked, scope, sensitivity, timed_on, int8, batch_size or 1, threads)
    if launched()[1] > 1 and (auto or aim.timed):
        raise typer.BadParameter(
            "each process would time, and choose widths, by itself: prune with one process and without "
            "fine-tuning, then fine-tune with rcompress train --init",
            param_hint="--target-latency, --round-to",
        )
    if resume:
        aim.require_repeatable(auto)
    tuning = Finetuning(
        planned.epochs,
        learning_rate,
        None if aim.timed else batch_size,
        resume,
        teacher,
        distill,
        temperature,
        alpha,
        planned.base,
    )
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.opening import open_source
        from rcompress.cli.pruning import finish, multiple_of, say
        from rcompress.cli.session import open_settings
        from rcompress.methods.group_tracing import find_groups
        from rcompress.methods.importance import NEEDS_IMAGES
        from rcompress.methods.iterative import step_path
        from rcompress.methods.prune import DEFAULT_ROUND_TO, PruneOptions

        tag = asked.tag if asked else "unmasked" if ratio is None else f"pruned{round(100 * ratio)}"
        target = require_checkpoint_output(output or derived(source, tag, ".pth"), [source, *(teacher or ())])
        settings = open_settings(device, threads, precision, seed=seed)
        reestimated = bn_reestimation and not from_mask  # whose outputs stay as they are
        scored = importance in NEEDS_IMAGES or aim.needs_data
        opened = open_source(source, arch, dataset, data_dir, out, bool(tuning.epochs), scored, reestimated)
        size = opened.spec.preprocessing.input_size
        graph = find_groups(opened.module, size, keep_residual, ignore or ())
        usual = 1 if from_mask else DEFAULT_ROUND_TO
        multiple = multiple_of(round_to, usual, graph, backend or "openvino", threads, out)
        if asked is not None:
            request = aim.request(asked, importance, multiple)
            report, chosen = _by_target(opened, graph, request, aim.sensitivity, settings, out)
            left = {"keep_residual": keep_residual, "ignore": list(ignore or ())}
            chosen = replace(chosen, details={**chosen.details, **left})
        elif ratio is None:
            report, chosen = _without_zeros(opened, graph, multiple, out)
        else:
            options_ = PruneOptions(
                ratio, importance, multiple, seed, aim.ranking, keep_residual, tuple(ignore or ())
            )
            if planned.steps:
                start, count = opened.start, planned.steps
                for number in range(1, count + 1):
                    require_checkpoint_output(step_path(target, number, count), [source, *(teacher or ())])
                told = pruned_in_steps(
                    source, start, options_, count, tuning, settings, target, reestimated, arch, out
                )
                out.path(target, **told)
                return
            report, chosen = _by_ratio(opened, graph, options_, out)
        say(out, report)
        metrics = finish(opened, target, report, chosen, tuning, settings, reestimated, arch, out)
        out.path(target, metrics=metrics)


def _by_ratio(
    opened: Opened, graph: ChannelGraph, chosen: PruneOptions, out: Output
) -> tuple[PruneReport, Decision]:
    """Cut by scores; what was chosen, for the lineage."""
    from rcompress.cli.pruning import Decision, scores_of
    from rcompress.methods.prune import choose_widths, prune_to

    scores = scores_of(opened, graph, chosen.importance, chosen.seed)
    widths = choose_widths(graph, scores, chosen)
    report = prune_to(graph, opened.spec.preprocessing.input_size, scores, widths)
    removed = report.channels_removed_percent
    if abs(removed - 100 * chosen.ratio) > 1:
        out.note(
            f"{removed:.1f} % of the channels are gone, not {100 * chosen.ratio:g} %: "
            f"widths stay at multiples of {chosen.round_to} (--round-to)"
        )
    return report, Decision({**asdict(chosen), "ignore": list(chosen.ignore)})


def _by_target(
    opened: Opened,
    graph: ChannelGraph,
    request: Request,
    sensitivity: Path | None,
    settings: Settings,
    out: Output,
) -> tuple[PruneReport, Decision]:
    """Cut to the widths that a search found; what was asked for, what came out, and what chose."""
    from rcompress.cli.pruning import Decision, scores_of
    from rcompress.methods.prune import prune_to

    scores = scores_of(opened, graph, request.importance, settings.seed)
    fit = fitted(opened, graph, scores, request, sensitivity, settings, out)
    report = prune_to(graph, opened.spec.preprocessing.input_size, scores, fit.widths)
    details = {**request.options(), "seed": settings.seed, "sensitivity": sensitivity and sensitivity.name}
    split = opened.spec.choice_split if request.decided_by_data else None
    return report, Decision(details, fit.metrics(), split)


def _without_zeros(
    opened: Opened, graph: ChannelGraph, multiple: int, out: Output
) -> tuple[PruneReport, Decision]:
    """Cut what is zero; what was chosen, for the lineage."""
    from rcompress.cli.pruning import Decision, zero_notes
    from rcompress.methods.zero_channels import prune_zeros

    report, found = prune_zeros(graph, opened.spec.preprocessing.input_size, multiple)
    for line in zero_notes(found):
        out.note(line)
    return report, Decision({"from_mask": True, "round_to": multiple})
