"""Accuracy of a loaded engine, whatever batches it allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcompress.artifacts.records import Record
from rcompress.artifacts.spec import Preprocessing
from rcompress.data import Split, input_batches
from rcompress.engines.base import Array, Engine, FloatArray, RunOptions
from rcompress.engines.benchmark import main_precision
from rcompress.measure.accuracy import Scores, evaluate
from rcompress.measure.layers import layer_figures
from rcompress.measure.static import file_metrics
from rcompress.progress import SILENT, Progress


class Judged(NamedTuple):
    """An engine's figures, and whether it is right on each image: bool (N,), in the split's order."""

    scores: Scores
    correct: NDArray[np.bool_]


def evaluate_engine(
    engine: Engine, split: Split, preprocessing: Preprocessing, batch_size: int, progress: Progress = SILENT
) -> Scores:
    """The figures of `judge_engine`."""
    return judge_engine(engine, split, preprocessing, batch_size, progress).scores


def judge_engine(
    engine: Engine, split: Split, preprocessing: Preprocessing, batch_size: int, progress: Progress = SILENT
) -> Judged:
    """Score ``engine`` on ``split``, image by image.

    Args:
        engine: takes what ``preprocessing`` makes of an image.
        split: uint8 images and labels.
        batch_size: images per call, where the engine leaves it open.

    Raises:
        RcompressError: the engine refuses the images, or its outputs do not fit the labels.
    """
    size = engine.info.nearest_batch(batch_size)
    guesses: list[Tensor] = []

    def run(images: Array) -> FloatArray:
        logits = run_padded(engine, images)
        guesses.append(torch.from_numpy(logits).argmax(dim=1))
        return logits

    title = f"evaluating {engine.info.path.name}"
    scores = evaluate(run, _arrays(split, preprocessing, size), len(split), progress, title)
    return Judged(scores, (torch.cat(guesses) == split.labels.cpu()).numpy())


def engine_logits(
    engine: Engine, split: Split, preprocessing: Preprocessing, batch_size: int, progress: Progress = SILENT
) -> tuple[FloatArray, Tensor]:
    """Logits (N, classes) and labels int64 (N,) of all images of ``split``; arguments as `judge_engine`."""
    size = engine.info.nearest_batch(batch_size)
    logits, labels = [], []
    progress.start(f"running {engine.info.path.name}", len(split))
    for images, truth in _arrays(split, preprocessing, size):
        logits.append(run_padded(engine, images))
        labels.append(truth)
        progress.advance(len(truth))
    return np.concatenate(logits), torch.cat(labels)


def run_padded(engine: Engine, images: Array) -> FloatArray:
    """Logits (n, classes) of ``images``, in batches that the engine takes: zeros stand beyond the last image."""
    size = engine.info.nearest_batch(len(images))
    if len(images) > size:
        parts = np.split(images, range(size, len(images), size))
        return np.concatenate([run_padded(engine, part) for part in parts])
    if len(images) == size:
        return engine.run(images)
    padding = np.zeros((size - len(images), *images.shape[1:]), dtype=images.dtype)
    return engine.run(np.concatenate([images, padding]))[: len(images)]


def _arrays(split: Split, preprocessing: Preprocessing, size: int) -> Iterator[tuple[Array, Tensor]]:
    for images, labels in input_batches(split, preprocessing, size):
        yield images.numpy(), labels


def evaluation_record(
    engine: Engine,
    scores: Scores,
    dataset: str,
    split: str,
    run: RunOptions,
    batch_size: int,
) -> Record:
    """The record of an evaluation: accuracy with its interval, confusion matrix, the file's sizes and layers."""
    info = engine.info
    layers = layer_figures(info.path, run.arch)
    notes = []
    if info.spec is None or info.spec.imported:
        notes.append("imported weights: what they were trained on is not known here")
    chosen_on = {step.chosen_on for step in info.spec.lineage} if info.spec else set()
    if split in chosen_on or (split == "test" and "test-a" in chosen_on):
        notes.append(f"{split} served choices for this model: the figure is too good by what that gained")
    elif split == "test-b" and "test-a" in chosen_on:
        notes.append("test-b is one fixed half of the test split: the other half served choices")
    return Record(
        kind="eval",
        artifact=info.path.name,
        sha256=info.sha256,
        metrics={**scores.metrics(), **file_metrics(info.path, info.spec, run.arch)},
        context={
            "dataset": dataset,
            "split": split,
            "images": scores.images,
            "backend": info.backend,
            "device": info.device,
            "precision": main_precision(info.executed),
            "executed_layers": info.executed,
            "threads": run.cpu_threads,
            "batch_size": info.nearest_batch(batch_size),
            "per_class_percent": list(scores.per_class_percent),
            "confusion": scores.confusion.tolist(),
            "classes": list(info.spec.preprocessing.class_names) if info.spec else [],
            **({"layers": layers} if layers else {}),
        },
        lineage=info.spec.to_dict()["lineage"] if info.spec else [],
        notes=notes,
    )
