"""``rcompress train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rcompress.cli import options
from rcompress.cli.naming import derived, file_stem
from rcompress.cli.output import Output
from rcompress.cli.penalizing import Penalty, PenaltyRatio, PenaltyStrength, penalties, require_consistent
from rcompress.cli.recipes import changed_recipe
from rcompress.cli.starting import builder_of


def command(
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            help="resnet20/32/44/56/110, resnet18/34/50, torchvision:NAME, or your own package.module:callable.",
        ),
    ] = None,
    dataset: options.Dataset = None,
    output: options.OutputPath = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Start from a checkpoint, or from `torchvision`'s weights.")
    ] = None,
    shortcut: options.Shortcut = None,
    stem: options.Stem = None,
    recipe: options.RecipeName = "default",
    config: options.Config = None,
    epochs: options.Epochs = None,
    batch_size: options.TrainingBatchSize = None,
    learning_rate: options.LearningRate = None,
    optimizer: options.Optimizer = None,
    schedule: options.Schedule = None,
    weight_decay: options.WeightDecay = None,
    label_smoothing: options.LabelSmoothing = None,
    mixup: options.Mixup = None,
    cutout: options.Cutout = None,
    ema: options.Ema = None,
    teacher: options.Teachers = None,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    sparsity_penalty: Penalty = None,
    penalty_strength: PenaltyStrength = None,
    penalty_ratio: PenaltyRatio = None,
    precision: options.Precision = "auto",
    compile: options.Compile = False,
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="BatchNorm over the whole batch of several processes (GPUs).")
    ] = False,
    image_size: options.ImageSize = None,
    resume: options.Resume = False,
    tensorboard: options.TensorBoard = False,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network, or fine-tune one.

    The epoch with the best validation accuracy is kept (validation is carved from the training split); the test
    accuracy of that one is reported. Beside the checkpoint: NAME.log.jsonl, NAME.curves.png and, until the end,
    NAME.resume. Several processes train one network under torchrun: torchrun --nproc-per-node 4 -m rcompress train …

    Example: rcompress train --arch resnet20 --dataset digits --epochs 8 -o r20.pth
    """
    builder = builder_of(init, arch, shortcut, stem, dataset, image_size)
    require_consistent(sparsity_penalty, penalty_strength, penalty_ratio)
    changes: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "mixup": mixup,
        "cutout": cutout,
        "ema": ema,
    }
    with Output(json_, quiet) as out:
        from dataclasses import asdict

        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.session import distilled, open_settings, resumable, say_scores
        from rcompress.training import run_training
        from rcompress.training.guidance import Guidance
        from rcompress.training.run import write_trained
        from rcompress.training.start import Origin

        origin = Origin(init, arch, builder, dataset, data_dir, image_size)
        source = origin.source
        default = derived(source, "tuned", ".pth") if source else Path(f"{file_stem(arch or 'model')}.pth")
        target = require_checkpoint_output(
            output or default, [path for path in (source, config, *(teacher or ())) if path]
        )
        settings = replace(open_settings(device, threads, precision, compile, seed), sync_batchnorm=sync_bn)
        chosen = changed_recipe(recipe, config, **changes)
        start = origin.open(chosen, seed, out)
        loss = distilled(
            start.spec, settings, teacher, temperature, alpha, None, arch, chosen.label_smoothing
        )
        held = penalties(sparsity_penalty, penalty_strength, penalty_ratio, start, chosen.epochs)
        with resumable(out, target):
            outcome = run_training(
                start.module,
                start.spec,
                start.dataset,
                chosen,
                settings,
                target,
                start.identity,
                resume,
                tensorboard,
                out,
                Guidance(loss, held),
            )
        used = start.spec.preprocessing
        chosen = replace(chosen, mean=used.mean, std=used.std)  # whoever chose it
        details = {
            **start.spec.network,
            "recipe": recipe,
            **asdict(chosen),
            "precision": settings.precision,
            "seed": seed,
            "init": init,
            **({"distillation": loss.identity()} if loss else {}),
            **({"penalty": held[0].identity()} if held else {}),
        }
        write_trained(target, "train", start.spec, outcome, details, start.parent)
        say_scores(out, outcome)
        out.path(target, metrics=outcome.metrics)
