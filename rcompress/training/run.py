"""A whole run: resumable, journalled, and scored on data that chose nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.spec import ModelSpec, ParentFields, Step
from rcompress.data import Dataset
from rcompress.errors import HelperDone
from rcompress.measure.accuracy import Scores
from rcompress.progress import SILENT, Progress
from rcompress.training.guidance import Guidance
from rcompress.training.journal import Journal
from rcompress.training.loop import Epoch, Material, Trainer, validate
from rcompress.training.recipe import Recipe
from rcompress.training.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """A trained network in evaluation mode on the CPU, and how it came about.

    Attributes:
        chosen_on, reported_on: the splits that chose the epoch and that the scores are of.
    """

    module: nn.Module
    history: list[Epoch]
    best_epoch: int
    scores: Scores
    metrics: dict[str, Any]
    chosen_on: str
    reported_on: str


def material_for(spec: ModelSpec, dataset: Dataset) -> Material:
    """The splits of a run: an imported network may have seen the validation split, so it is judged elsewhere."""
    judges = dataset.split(spec.choice_split)
    return Material(
        dataset.split("train"), judges, spec.preprocessing, dataset.augmentation, spec.choice_split
    )


def run_training(
    module: nn.Module,
    spec: ModelSpec,
    dataset: Dataset,
    recipe: Recipe,
    settings: Settings,
    output: Path,
    origin: Mapping[str, Any],
    resume: bool = False,
    tensorboard: bool = False,
    progress: Progress = SILENT,
    guidance: Guidance = Guidance(),
) -> Outcome:
    """Train ``module`` by ``recipe``, keep the best validation epoch, score it on the split that chose nothing.

    Args:
        module: the network to train; it is changed.
        spec: its description; ``spec.preprocessing`` is what it is fed.
        dataset: named splits.
        output: the checkpoint to be written by the caller; the journal goes beside it.
        origin: where the weights come from (parent's hash, options of the pruning before), as primitives.
        resume: go on where a killed run with the same options stood.
        guidance: another loss (a teacher's), constraints on the weights, optimizer groups.

    Of several processes, the first returns alone; the others have helped.

    Raises:
        RcompressError: the splits cannot be read, the state to resume is another run's, the loss diverged, or a file
            cannot be written.
        HelperDone: this process is not the first.
    """
    chosen = recipe.epochs > 0
    dataset.split(reported_split(spec, chosen))  # a fault in what is read last must not cost the training
    torch.manual_seed(settings.seed)
    trainer = Trainer(module, material_for(spec, dataset), recipe, settings, guidance)
    identity = run_identity(spec, recipe, settings, origin, guidance)
    journal = Journal(output, identity, tensorboard and settings.processes.first)
    if resume and journal.resume(trainer):
        progress.note(f"resuming after epoch {len(trainer.history)} of {recipe.epochs}")
    trained = trainer.run(journal.write if settings.processes.first else _not_written, progress)
    journal.close()
    scores = test_scores(trained, spec, dataset, settings, chosen, progress)
    settings.processes.leave()
    if not settings.processes.first:
        raise HelperDone
    metrics = _metrics(trainer, scores)
    return Outcome(
        trained.cpu(),
        trainer.history,
        trainer.best.epoch,
        scores,
        metrics,
        spec.choice_split,
        reported_split(spec, chosen),
    )


def write_trained(
    output: Path,
    command: str,
    spec: ModelSpec,
    outcome: Outcome,
    options: dict[str, Any],
    parent: ParentFields,
    notes: tuple[str, ...] = (),
    packed: bool = False,
) -> ModelSpec:
    """Write the checkpoint of a run as one more step of its history; only then the state to resume from goes.

    ``packed`` is `write_checkpoint`'s.
    """
    chosen_on = spec.choice_split if outcome.history else None
    step = Step(command, options, metrics=outcome.metrics, notes=notes, chosen_on=chosen_on, **parent)
    written = spec.with_step(step)
    write_checkpoint(output, written, outcome.module.state_dict(), packed)
    Journal.discard(output)
    return written


def run_identity(
    spec: ModelSpec,
    recipe: Recipe,
    settings: Settings,
    origin: Mapping[str, Any],
    guidance: Guidance = Guidance(),
) -> dict[str, Any]:
    """What must agree for one run to go on with another's state."""
    return {
        "arch": spec.arch,
        "options": spec.options,
        "origin": dict(origin),
        "num_classes": spec.num_classes,
        "preprocessing": asdict(spec.preprocessing),
        "recipe": asdict(recipe),
        "precision": settings.precision,
        "seed": settings.seed,
        "guidance": guidance.identity(),
    }


def test_scores(
    module: nn.Module,
    spec: ModelSpec,
    dataset: Dataset,
    settings: Settings,
    chosen: bool,
    progress: Progress = SILENT,
) -> Scores:
    """Score ``module``, in FP32, on the `reported_split`."""
    split = dataset.split(reported_split(spec, chosen)).on(settings.device)
    return validate(module, split, spec.preprocessing, replace(settings, precision="fp32"), progress)


def reported_split(spec: ModelSpec, chosen: bool) -> str:
    """The test split, or its second half where the first has ``chosen`` something, now or before."""
    return "test-b" if chosen and spec.choice_split == "test-a" else spec.report_split


def _not_written(trainer: Trainer) -> None:
    """The first process keeps the journal."""


def _metrics(trainer: Trainer, scores: Scores) -> dict[str, Any]:
    metrics: dict[str, Any] = scores.metrics()
    if trainer.history:
        epochs = trainer.history
        metrics["best_epoch"] = trainer.best.epoch
        metrics["validation_top1_percent"] = trainer.best.top1_percent
        metrics["train_seconds"] = sum(epoch["epoch_seconds"] for epoch in epochs)
        metrics["epoch_seconds"] = metrics["train_seconds"] / len(epochs)
        held = (
            "train_peak_gpu_memory_bytes"
            if trainer.settings.device.type == "cuda"
            else "train_peak_memory_bytes"
        )
        metrics[held] = max(epoch["peak_memory_bytes"] for epoch in epochs)
    return metrics
