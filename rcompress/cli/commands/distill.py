"""``rcompress distill``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from rcompress.cli import options
from rcompress.cli.naming import derived, file_stem
from rcompress.cli.output import Output
from rcompress.cli.recipes import changed_recipe

if TYPE_CHECKING:
    from rcompress.training import Recipe
    from rcompress.training.start import Start
    from rcompress.training.teachers import Member
    from rcompress.training.teaching import Taught

LossName = Literal["logits", "hints", "attention", "relational"]
LOSSES: dict[str, LossName] = {name: name for name in get_args(LossName)}


def command(
    student: Annotated[
        str, typer.Option("--student", help="Checkpoint, or an architecture to train from nothing.")
    ],
    teacher: Annotated[
        list[Path],
        typer.Option("--teacher", help="Network to learn from (.pth, .onnx, engine); again for several."),
    ],
    output: options.OutputPath = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            "--loss",
            help="logits, hints, attention, relational; NAME:WEIGHT for another weight; again for several (logits).",
        ),
    ] = None,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    weighting: Annotated[
        Literal["mean", "confidence"],
        typer.Option(help="Of several teachers: equal, or more to those right about an image."),
    ] = "mean",
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", help="STUDENT=TEACHER layers for hints and attention (default: by size)."),
    ] = None,
    cache_teacher: Annotated[
        bool,
        typer.Option(
            "--cache-teacher",
            help="Ask the teacher once per image and keep its answers; turns random crops off.",
        ),
    ] = False,
    shortcut: options.Shortcut = None,
    stem: options.Stem = None,
    recipe: options.RecipeName = "default",
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
    precision: options.Precision = "auto",
    compile: options.Compile = False,
    resume: options.Resume = False,
    tensorboard: options.TensorBoard = False,
    arch: options.ArchCode = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a student on what teachers say of the images, beside the labels.

    logits: the teachers' softened outputs (Hinton 2015). Learned beside them, or beside the labels alone, from one
    .pth: hints (features of a middle stage; Romero 2015), attention (Zagoruyko 2017), relational (Park 2019).

    Example: rcompress distill --teacher r20.pth --student resnet20 --epochs 4 -o student.pth
    """
    source = Path(student) if student.endswith(".pth") else None
    if source is not None and (shortcut or stem):
        raise typer.BadParameter("the checkpoint has its own architecture", param_hint="--student")
    losses, pairs = dict(map(_weighted, loss or ["logits"])), tuple(map(_pair, layers or ()))
    if pairs and not losses.keys() & {"hints", "attention"}:
        raise typer.BadParameter("goes with hints and attention", param_hint="--layers")
    if "logits" not in losses and not (temperature is None and alpha is None and weighting == "mean"):
        raise typer.BadParameter("goes with --loss logits", param_hint="--temperature, --alpha, --weighting")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.session import open_settings, resumable
        from rcompress.training.distillation import ALPHA, TEMPERATURE
        from rcompress.training.lessons import Lesson
        from rcompress.training.run import write_trained
        from rcompress.training.teachers import load_member
        from rcompress.training.teaching import teach

        default = derived(source, "distilled") if source else Path(f"{file_stem(student)}-distilled.pth")
        target = require_checkpoint_output(output or default, [*teacher, *([source] if source else [])])
        lesson = Lesson(
            losses,
            TEMPERATURE if temperature is None else temperature,
            ALPHA if alpha is None else alpha,
            weighting,
            pairs,
        )
        chosen = changed_recipe(
            recipe,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer=optimizer,
            schedule=schedule,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            mixup=mixup,
            cutout=cutout,
            ema=ema,
        )
        settings = open_settings(device, threads, precision, compile, seed)
        members = [load_member(path, settings, arch) for path in teacher]
        if source is not None:
            start = _from_file(source, arch, dataset, data_dir, out)
        else:
            builder = {name: str(value) for name, value in (("shortcut", shortcut), ("stem", stem)) if value}
            start = _from_nothing(student, builder, members[0], dataset, data_dir, chosen, seed)
        with resumable(out, target):
            taught = teach(
                start, members, lesson, chosen, settings, target, cache_teacher, resume, tensorboard, out
            )
        _say(out, taught, cache_teacher)
        outcome = taught.outcome
        outcome.metrics["teacher_top1_percent"] = taught.teacher.top1_percent
        details = {
            **start.spec.network,
            "teachers": [{"name": member.path.name, "sha256": member.sha256} for member in members],
            **lesson.options(),
            "cache_teacher": cache_teacher,
            "recipe": recipe,
            **asdict(chosen),
            "precision": settings.precision,
            "seed": seed,
        }
        write_trained(target, "distill", start.spec, outcome, details, start.parent)
        out.path(target, metrics=outcome.metrics)


def _from_file(
    source: Path, arch: str | None, dataset: str | None, data_dir: Path | None, out: Output
) -> Start:
    from rcompress.training.start import from_checkpoint

    return from_checkpoint(source, arch, dataset, data_dir, out)


def _from_nothing(
    arch: str,
    builder: dict[str, str],
    teacher: Member,
    dataset: str | None,
    data_dir: Path | None,
    recipe: Recipe,
    seed: int,
) -> Start:
    """A fresh network for the teacher's data."""
    from rcompress.data import dataset_for
    from rcompress.training.start import fresh, normalized_as

    start = fresh(
        arch, builder, dataset_for(teacher.path, teacher.spec.preprocessing, dataset, data_dir), seed
    )
    preprocessing = normalized_as(recipe, start.spec.preprocessing)
    return replace(start, spec=replace(start.spec, preprocessing=preprocessing))


def _say(out: Output, taught: Taught, cached: bool) -> None:
    from rcompress.cli.session import say_scores

    say_scores(out, taught.outcome)
    student, teacher = taught.outcome.scores.top1_percent, taught.teacher.top1_percent
    out.note(
        f"the teacher has {teacher:.2f} % on the same {taught.teacher.images:,} images: "
        f"the student is {abs(student - teacher):.2f} points {'below' if student < teacher else 'above'}"
    )
    if cached:
        out.note(
            "random crops were off (--cache-teacher), which a run without it has: compare before keeping it"
        )


def _weighted(text: str) -> tuple[LossName, float | None]:
    """``attention`` or ``attention:500``."""
    name, _, weight = text.partition(":")
    if name not in LOSSES or (name == "logits" and weight):
        raise typer.BadParameter(
            f"{text!r} is none of {', '.join(LOSSES)} (logits is weighted by --alpha)", param_hint="--loss"
        )
    try:
        return LOSSES[name], float(weight) if weight else None
    except ValueError:
        raise typer.BadParameter(f"{weight!r} is no number", param_hint="--loss") from None


def _pair(text: str) -> tuple[str, str]:
    """``layer2=layer3``."""
    student, _, teacher = text.partition("=")
    if not (student and teacher):
        raise typer.BadParameter(f"{text!r} is no pair such as layer2=layer2", param_hint="--layers")
    return student, teacher
