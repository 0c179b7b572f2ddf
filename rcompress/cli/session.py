"""What several commands do alike: settle where to compute, say what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rcompress.cli.output import launched
from rcompress.errors import RcompressError

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec, Preprocessing
    from rcompress.cli.output import Output
    from rcompress.data import Dataset
    from rcompress.engines import EngineInfo
    from rcompress.training import Outcome, Settings
    from rcompress.training.guidance import Loss
    from rcompress.training.settings import PrecisionChoice


def open_settings(
    device: str, threads: int, precision: PrecisionChoice = "auto", compile: bool = False, seed: int = 0
) -> Settings:
    """The options that say where and how to compute, settled for this machine and for ``torchrun``; seeds PyTorch."""
    import torch

    from rcompress.artifacts.device import resolve_device
    from rcompress.measure.memory import keep_freed_blocks
    from rcompress.training import Settings, resolve_precision
    from rcompress.training.processes import ALONE, join

    torch.manual_seed(seed)
    set_threads(threads)
    chosen = resolve_device(device)
    if chosen.type == "cpu":
        keep_freed_blocks()
    rank, count, local_rank = launched()
    if count > 1 and chosen.type == "cuda":
        chosen = resolve_device(f"cuda:{local_rank}")
    processes = join(rank, count, chosen) if count > 1 else ALONE
    return Settings(chosen, resolve_precision(precision, chosen), compile, seed, processes)


@contextmanager
def resumable(out: Output, target: Path) -> Iterator[None]:
    """Around a training: when it is interrupted and has left something to go on from, say how."""
    state = target.with_suffix(".resume")
    before = state.stat().st_mtime_ns if state.exists() else None
    try:
        yield
    except KeyboardInterrupt:
        if state.exists() and state.stat().st_mtime_ns != before:
            out.note(f"{state} is kept: the same command with --resume goes on there")
        raise


def set_threads(threads: int) -> None:
    """Give PyTorch ``threads`` CPU threads; 0 leaves its choice."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def say_scores(out: Output, outcome: Outcome) -> None:
    """One line: the accuracy on data that chose nothing, with its interval, and how long an epoch took."""
    metrics = outcome.metrics
    interval = f"{metrics['top1_percent_low']:.2f}-{metrics['top1_percent_high']:.2f}"
    split = "" if outcome.reported_on == "test" else f" on {outcome.reported_on}"
    text = f"top-1 {metrics['top1_percent']:.2f} %{split} ({interval})"
    if outcome.history:
        text += (
            f", best epoch {metrics['best_epoch']} of {len(outcome.history)} by {outcome.chosen_on} "
            f"({metrics['validation_top1_percent']:.2f} %), {metrics['epoch_seconds']:.1f} s per epoch"
        )
    out.note(text)


def preprocessing_from(
    source: Path,
    dataset: str | None,
    data_dir: Path | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    image_size: int | None = None,
) -> Preprocessing:
    """What a foreign model expects: the dataset's preprocessing, with ``mean`` and ``std`` where they are given."""
    from dataclasses import replace

    from rcompress.artifacts.spec import Preprocessing, SpecError
    from rcompress.data import open_dataset

    try:
        if dataset is not None:
            base = open_dataset(dataset, data_dir, image_size).preprocessing()
            return replace(base, mean=mean or base.mean, std=std or base.std)
        if mean is None or std is None or image_size is None:
            raise RcompressError(
                source,
                "does not say how its images are prepared",
                "give --dataset, or --mean, --std and --image-size",
            )
        return Preprocessing((len(mean), image_size, image_size), mean, std)
    except SpecError as error:
        raise RcompressError(source, str(error), "give --mean and --std one value per channel") from None


def foreign_preprocessing(
    info: EngineInfo,
    dataset: str | None,
    data_dir: Path | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> Preprocessing:
    """What the file says of its preprocessing; of a file that says nothing, what the options say.

    Raises:
        RcompressError: the file says nothing and the options not enough, or both say something.
    """
    if info.spec is None:
        if dataset is None or mean is None or std is None:
            raise RcompressError(
                info.path, "does not say how its images are prepared", "give --dataset, --mean and --std"
            )
        size = info.input_shape[-1] if dataset.startswith("imagefolder:") else None
        return preprocessing_from(info.path, dataset, data_dir, mean, std, size)
    if mean is not None or std is not None:
        raise RcompressError(
            info.path, "already says how its images are normalised", "leave --mean and --std out"
        )
    return info.spec.preprocessing


def open_for(
    info: EngineInfo, preprocessing: Preprocessing, dataset: str | None, data_dir: Path | None
) -> Dataset:
    """The dataset that the engine's file names, or the one given instead; refused where it contradicts it."""
    from rcompress.data import check_matches, dataset_for

    opened = dataset_for(info.path, preprocessing, dataset, data_dir)
    classes = info.spec.num_classes if info.spec else len(opened.class_names)
    check_matches(opened, info.path, preprocessing.input_size, classes, preprocessing.class_names)
    return opened


def distilled(
    student: ModelSpec,
    settings: Settings,
    teachers: Sequence[Path] | None,
    temperature: float | None,
    alpha: float | None,
    parent: Path | None = None,
    arch: str | None = None,
    label_smoothing: float = 0.0,
) -> Loss | None:
    """The loss of learning from ``teachers``, by default from ``parent``; None where there is neither.

    Args:
        student: what is trained, on the data that it is trained on.
        settings: of the run.
        teachers, temperature, alpha: as the options of these names were given.
        parent: the file that a fine-tuning starts from; None with ``--no-distill`` and for fresh networks.
        arch: the user's architecture, where a teacher was built by it.
        label_smoothing: the recipe's.

    Raises:
        BadParameter: a temperature or weight without a teacher.
        RcompressError: a teacher does not fit the student, or cannot be run.
    """
    from rcompress.training.distillation import ALPHA, TEMPERATURE, LogitDistillation
    from rcompress.training.teachers import open_teacher

    files = list(teachers or ([parent] if parent else []))
    if not files:
        if temperature is not None or alpha is not None:
            raise typer.BadParameter("goes with a teacher", param_hint="--temperature, --alpha")
        return None
    try:
        teacher = open_teacher(files, student, settings, arch)
    except RcompressError as error:
        if teachers:
            raise
        raise RcompressError(
            error.subject, f"{error.fault}, so it cannot teach it", "name a --teacher, or use --no-distill"
        ) from None
    return LogitDistillation(
        teacher,
        TEMPERATURE if temperature is None else temperature,
        ALPHA if alpha is None else alpha,
        label_smoothing=label_smoothing,
    )
