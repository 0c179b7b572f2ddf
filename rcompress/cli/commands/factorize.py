"""``rcompress factorize``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.finetuning import Finetuning
from rcompress.cli.naming import derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.cli.opening import Opened
    from rcompress.methods.factorize import FactorizedLayer, FactorizeOptions, FactorizeReport
    from rcompress.training import Settings


def _open_share(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1")
    return value


def command(
    source: options.Source,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of every layer.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            callback=_open_share, help="Share of the squared singular values that stays, as in 0.9."
        ),
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(callback=_open_share, help="Share of each layer's MACs to remove.")
    ] = None,
    evbmf: Annotated[
        bool, typer.Option("--evbmf", help="Keep what stands out of the noise (variational Bayes).")
    ] = False,
    output: options.OutputPath = None,
    scheme: Annotated[
        Literal["auto", "spatial", "channel", "tucker"],
        typer.Option(
            help="spatial: k x 1, 1 x k; channel: k x k, 1 x 1; tucker: 1 x 1, k x k, 1 x 1; auto: for each layer "
            "one of the first two."
        ),
    ] = "auto",
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layer, or part of the network, to leave alone; may be repeated.")
    ] = None,
    round_to: Annotated[
        int | None, typer.Option(min=1, help="Keep ranks at multiples of this (8; as it is with --rank).")
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
    """Split layers into products of cheaper ones (low rank), and fine-tune.

    Each convolution and linear layer becomes two or three smaller ones, of a rank that --rank, --energy, --ratio or
    --evbmf chooses, where that saves multiplications; the others are named, with the reason. Every command reads the
    file as any other; prune cuts the ranks further.

    Example: rcompress factorize r20.pth --ratio 0.5 --finetune-epochs 5
    """
    if sum((rank is not None, energy is not None, ratio is not None, evbmf)) != 1:
        raise typer.BadParameter("give one of the four", param_hint="--rank, --energy, --ratio, --evbmf")
    if rank is not None and round_to is not None:
        raise typer.BadParameter("--rank says it all", param_hint="--round-to")
    tuning = Finetuning(
        finetune_epochs, learning_rate, batch_size, resume, teacher, distill, temperature, alpha
    )
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.opening import open_source, say_sizes
        from rcompress.cli.session import open_settings
        from rcompress.methods.factorize import DEFAULT_ROUND_TO, FactorizeOptions, factorize

        multiple = round_to or DEFAULT_ROUND_TO
        chosen = FactorizeOptions(scheme, rank, energy, ratio, evbmf, tuple(ignore or ()), multiple)
        target = require_checkpoint_output(
            output or derived(source, _tag(chosen), ".pth"), [source, *(teacher or ())]
        )
        settings = open_settings(device, threads, precision, seed=seed)
        opened = open_source(
            source, arch, dataset, data_dir, out, bool(finetune_epochs), False, bn_reestimation
        )
        report = factorize(opened.module, opened.spec.preprocessing.input_size, chosen, out)
        _say(out, report, chosen)
        metrics = _finished(opened, target, report, chosen, tuning, settings, bn_reestimation, arch, out)
        size = say_sizes(out, source, target)
        out.path(target, metrics=metrics, size_bytes=size, layers=[asdict(row) for row in report.layers])


def _tag(chosen: FactorizeOptions) -> str:
    """What the default name of the output adds to the source's."""
    if chosen.rank is not None:
        return f"rank{chosen.rank}"
    if chosen.energy is not None:
        return f"energy{100 * chosen.energy:g}"
    return "evbmf" if chosen.ratio is None else f"factorized{100 * chosen.ratio:g}"


def _finished(
    opened: Opened,
    target: Path,
    report: FactorizeReport,
    chosen: FactorizeOptions,
    tuning: Finetuning,
    settings: Settings,
    bn_reestimation: bool,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    """Recover, fine-tune and write the factorized network; returns the step's metrics."""
    from rcompress.artifacts.spec import Step
    from rcompress.cli.opening import completed, recovered

    measured = bn_reestimation and opened.dataset is not None
    metrics = _metrics(report) | (recovered(opened, settings, out) if measured else {})
    details = {**asdict(chosen), "ignore": list(chosen.ignore), "bn_reestimation": measured}
    step = Step("factorize", details, metrics=metrics, notes=_notes(report), **opened.parent)
    described = replace(opened, spec=report.described(opened.spec))
    return completed(described, target, step, tuning, settings, arch, out)


def _metrics(report: FactorizeReport) -> dict[str, Any]:
    return {
        "parameters": report.parameters[1],
        "macs": report.macs[1],
        "factorized_layers": sum(row.reason is None for row in report.layers),
    }


def _notes(report: FactorizeReport) -> tuple[str, ...]:
    return tuple(f"{row.name} is left as it is: {row.reason}" for row in report.layers if row.reason)


def _say(out: Output, report: FactorizeReport, chosen: FactorizeOptions) -> None:
    """A line for each layer, and one for the network."""
    names = max(len(row.name) for row in report.layers)
    ranks = max(len(_ranks(row)) for row in report.layers)
    for row in report.layers:
        out.note(_line(row, names, ranks))
    out.note(f"parameters {_change(report.parameters)}, MACs {_change(report.macs)}")
    if chosen.ratio is not None and chosen.round_to > 1:
        removed = 1 - report.share_of_split_layers
        if abs(removed - chosen.ratio) > 0.01:
            out.note(
                f"{removed:.1%} of those layers' MACs are gone, not {chosen.ratio:.1%}: ranks stay at multiples of "
                f"{chosen.round_to} (--round-to)"
            )


def _line(row: FactorizedLayer, names: int, ranks: int) -> str:
    if row.reason is not None:
        return f"{row.name:{names}}  left as it is: {row.reason}"
    share = row.macs[1] / row.macs[0]
    return (
        f"{row.name:{names}}  {row.scheme:7}  rank {_ranks(row):{ranks}}  {share:6.1%} of its MACs, "
        f"weights off by {row.relative_error:.1%} of their norm"
    )


def _ranks(row: FactorizedLayer) -> str:
    from rcompress.methods.factorize import shown

    return f"{shown(row.ranks)} of {shown(row.full)}" if row.reason is None else ""


def _change(figures: tuple[int, int]) -> str:
    before, after = figures
    return f"{before:,} -> {after:,} ({after / before:.1%})"
