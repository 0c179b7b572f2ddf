"""``rcompress binarize``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import options
from rcompress.cli.finetuning import Finetuning
from rcompress.cli.naming import derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.methods.binarize import BinarizeOptions
    from rcompress.training import Settings
    from rcompress.training.start import Start


def command(
    source: options.Source,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 20,
    output: options.OutputPath = None,
    scaling: Annotated[
        Literal["none", "xnor"],
        typer.Option(help="none: weights of -1 and 1; xnor: times a scale for each filter."),
    ] = "none",
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Draw the signs of every training step.")
    ] = False,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="The first and the last layer too; they stay FP32 else.")
    ] = False,
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
    """Train weights of one bit (BinaryConnect).

    The file holds a bit for each of them. It starts from a trained network; one from `rcompress train --epochs 0`
    has nothing to teach, so give --no-distill with that.

    Example: rcompress binarize r20.pth --epochs 20
    """
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.opening import say_sizes
        from rcompress.cli.session import open_settings
        from rcompress.methods.binarize import BinarizeOptions
        from rcompress.training.start import from_checkpoint

        training = Finetuning(
            epochs,
            learning_rate,
            batch_size,
            resume,
            teacher,
            distill,
            temperature,
            alpha,
            base="binary-connect",
        )
        chosen = BinarizeOptions(scaling, stochastic, all_layers)
        target = require_checkpoint_output(
            output or derived(source, "binary", ".pth"), [source, *(teacher or ())]
        )
        settings = open_settings(device, threads, precision, seed=seed)
        start = from_checkpoint(source, arch, dataset, data_dir, out)
        metrics = _trained(start, source, target, chosen, training, settings, arch, out)
        size = say_sizes(out, source, target)
        out.note("Exported to ONNX its weights are FP32 again: no engine here computes with one bit.")
        out.path(target, metrics=metrics, size_bytes=size)


def _trained(
    start: Start,
    source: Path,
    target: Path,
    chosen: BinarizeOptions,
    training: Finetuning,
    settings: Settings,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    from rcompress.cli.session import say_scores
    from rcompress.methods.binarize import BinaryConnect, binary_layers, parameter_groups
    from rcompress.methods.layer_weights import plain, weighted_layers
    from rcompress.training.guidance import Guidance
    from rcompress.training.run import write_trained

    names = binary_layers(start.module, chosen)
    kept = [name for name, _ in weighted_layers(start.module) if name not in names]
    out.note(f"{len(names)} layers of one bit; FP32: {', '.join(kept) or 'none'}")
    loss = training.loss(start.spec, settings, source, arch)
    guidance = Guidance(loss, (BinaryConnect(names, chosen),), parameter_groups(training.recipe()))
    outcome = training.run(start, settings, target, asdict(chosen), guidance, out)
    plain(outcome.module)
    outcome.metrics["binary_layers"] = len(names)
    notes = tuple(f"{name} is FP32" for name in kept)
    details = {**asdict(chosen), **training.details(settings, loss)}
    write_trained(target, "binarize", start.spec, outcome, details, start.parent, notes, packed=True)
    say_scores(out, outcome)
    return outcome.metrics
