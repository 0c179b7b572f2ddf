"""``rcompress prune``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.finetuning import Finetuning
from rcompress.cli.naming import derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.cli.pruning import Opened
    from rcompress.methods.channel_groups import ChannelGraph
    from rcompress.methods.prune import PruneOptions, PruneReport


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
    output: options.OutputPath = None,
    importance: options.Importance = "l2",
    scope: Annotated[
        Literal["local", "global"],
        typer.Option(help="The same share of each layer, or the least important of the whole network."),
    ] = "local",
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
            help="Keep widths at multiples of this (16; 1 with --from-mask); auto: measure what OpenVINO runs "
            "fastest here.",
        ),
    ] = None,
    bn_reestimation: options.BnReestimation = True,
    finetune_epochs: Annotated[int, typer.Option(min=0, help="Train this long afterwards.")] = 0,
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
    """Remove channels for real, and fine-tune.

    A channel goes from every layer that shares it; widths stay at multiples that engines run fast. What cannot be
    pruned is named, with the reason. taylor, hessian and activation look at training images.

    Example: rcompress prune r20.pth --ratio 0.6 --finetune-epochs 5
    """
    if (ratio is None) != from_mask:
        raise typer.BadParameter("give one of the two", param_hint="--ratio, --from-mask")
    if from_mask and (importance != "l2" or scope != "local"):
        raise typer.BadParameter("go with --ratio", param_hint="--importance, --scope")
    tuning = Finetuning(
        finetune_epochs, learning_rate, batch_size, resume, teacher, distill, temperature, alpha
    )
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.pruning import finish, multiple_of, open_source, say
        from rcompress.cli.session import open_settings
        from rcompress.methods.group_tracing import find_groups
        from rcompress.methods.importance import NEEDS_IMAGES
        from rcompress.methods.prune import DEFAULT_ROUND_TO, PruneOptions

        tag = "unmasked" if ratio is None else f"pruned{round(100 * ratio)}"
        target = require_checkpoint_output(output or derived(source, tag, ".pth"), [source])
        settings = open_settings(device, threads, precision, seed=seed)
        reestimated = bn_reestimation and not from_mask  # whose outputs stay as they are
        scored = importance in NEEDS_IMAGES
        opened = open_source(source, arch, dataset, data_dir, out, bool(tuning.epochs), scored, reestimated)
        size = opened.spec.preprocessing.input_size
        graph = find_groups(opened.module, size, keep_residual, ignore or ())
        multiple = multiple_of(round_to, 1 if from_mask else DEFAULT_ROUND_TO, graph, threads, out)
        if ratio is None:
            report, chosen = _without_zeros(opened, graph, multiple, out)
        else:
            options_ = PruneOptions(
                ratio, importance, multiple, seed, scope, keep_residual, tuple(ignore or ())
            )
            report, chosen = _by_ratio(opened, graph, options_, out)
        say(out, report)
        metrics = finish(opened, target, report, chosen, tuning, settings, reestimated, arch, out)
        out.path(target, metrics=metrics)


def _by_ratio(
    opened: Opened, graph: ChannelGraph, chosen: PruneOptions, out: Output
) -> tuple[PruneReport, dict[str, Any]]:
    """Cut by scores; what was chosen, for the lineage."""
    from rcompress.cli.pruning import scores_of
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
    return report, {**asdict(chosen), "ignore": list(chosen.ignore)}


def _without_zeros(
    opened: Opened, graph: ChannelGraph, multiple: int, out: Output
) -> tuple[PruneReport, dict[str, Any]]:
    """Cut what is zero; what was chosen, for the lineage."""
    from rcompress.methods.zero_channels import prune_zeros

    report, found = prune_zeros(graph, opened.spec.preprocessing.input_size, multiple)
    for layer, count, why in found.stuck:
        out.note(f"{layer}: {count} zero filters stay: {why}")
    return report, {"from_mask": True, "round_to": multiple}
