"""Accuracy from logits: streaming, of anything that returns them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress

Values = Tensor | NDArray[Any]
Images = TypeVar("Images")

TOP_K = 5
Z_95 = 1.959963984540054
"""The two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Scores:
    """What a network got right.

    Attributes:
        loss: mean cross entropy, in nats.
        confusion: (classes, classes) int64, row = true class, column = predicted class.
        top5_correct: images whose class was among the five highest logits; None with five classes or fewer.
    """

    loss: float
    confusion: NDArray[np.int64]
    top5_correct: int | None

    @property
    def images(self) -> int:
        """How many images were scored."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """How many of them were classified correctly."""
        return int(np.trace(self.confusion))

    @property
    def top1_percent(self) -> float:
        """Share classified correctly, in percent."""
        return 100.0 * self.correct / self.images

    @property
    def top5_percent(self) -> float | None:
        """Share whose class was among the five highest, in percent; None with five classes or fewer."""
        return None if self.top5_correct is None else 100.0 * self.top5_correct / self.images

    @property
    def per_class_percent(self) -> tuple[float | None, ...]:
        """Top-1 in percent of each class's own images; None for a class of which there were none."""
        counts = self.confusion.sum(axis=1).tolist()
        hits = np.diagonal(self.confusion).tolist()
        return tuple(100.0 * hit / count if count else None for hit, count in zip(hits, counts, strict=True))

    def metrics(self) -> dict[str, float]:
        """The figures in the records' vocabulary."""
        low, high = wilson_interval(self.correct, self.images)
        figures = {
            "top1_percent": self.top1_percent,
            "top1_percent_low": 100.0 * low,
            "top1_percent_high": 100.0 * high,
            "loss": self.loss,
        }
        if self.top5_percent is not None:
            figures["top5_percent"] = self.top5_percent
        return figures


class Tally:
    """Accumulates logits and labels batch by batch; nothing but counts is kept."""

    def __init__(self) -> None:
        self._confusion: Tensor | None = None
        self._loss = 0.0
        self._top5 = 0

    def add(self, logits: Values, labels: Values) -> None:
        """Count one batch: ``logits`` (N, classes) of any float type, ``labels`` (N,) integers.

        Raises:
            RcompressError: a logit is not finite, or a label is not one of the network's classes.
        """
        scores = torch.as_tensor(logits).float()
        truth = torch.as_tensor(labels).to(scores.device, torch.int64)
        classes = _checked(scores, truth)
        cells = truth * classes + scores.argmax(dim=1)
        counts = torch.bincount(cells, minlength=classes * classes).view(classes, classes).cpu()
        self._confusion = counts if self._confusion is None else self._confusion + counts
        self._loss += float(torch.nn.functional.cross_entropy(scores, truth, reduction="sum"))
        if classes > TOP_K:
            self._top5 += int((scores.topk(TOP_K, dim=1).indices == truth[:, None]).sum())

    def combine(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace what was counted by its ``total`` over several processes, each with some images of its own."""
        if self._confusion is None:
            return
        others = torch.tensor([self._loss, float(self._top5)], dtype=torch.float64)
        counts = total(torch.cat([self._confusion.double().flatten(), others]))
        self._confusion = counts[:-2].to(torch.int64).view_as(self._confusion)
        self._loss, self._top5 = float(counts[-2]), int(counts[-1])

    @property
    def top1_percent(self) -> float:
        """Top-1 of what was added so far."""
        return self.scores().top1_percent

    def scores(self) -> Scores:
        """The figures of everything added.

        Raises:
            RcompressError: nothing was added.
        """
        if self._confusion is None or not int(self._confusion.sum()):
            raise RcompressError("evaluation", "there are no images to score", "name a split that has some")
        confusion = self._confusion.numpy()
        top5 = self._top5 if confusion.shape[0] > TOP_K else None
        return Scores(self._loss / int(confusion.sum()), confusion, top5)


def score(logits: Values, labels: Values) -> Scores:
    """The figures of one set of logits (N, classes) and labels (N,)."""
    tally = Tally()
    tally.add(logits, labels)
    return tally.scores()


def evaluate(
    run: Callable[[Images], Values],
    batches: Iterable[tuple[Images, Values]],
    images: int,
    progress: Progress = SILENT,
    title: str = "evaluating",
) -> Scores:
    """Run every batch and score it.

    Args:
        run: from what ``batches`` yields (tensors for a module, arrays for an engine) to logits (N, classes).
        batches: inputs and labels (N,).
        images: how many there are in all, for the progress.
        title: what the progress is called.

    Raises:
        RcompressError: there are no images, a logit is not finite, or a label is no class of the network.
    """
    progress.start(title, images)
    tally = Tally()
    for inputs, labels in batches:
        with torch.inference_mode():
            tally.add(run(inputs), labels)
        progress.advance(len(labels), top1=tally.top1_percent)
    return tally.scores()


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Score interval of a share (E. B. Wilson, 1927, Probable inference), as fractions; 95 % by default.

    Unlike the normal approximation it stays within 0..1 and has a width at 0 and 1.
    """
    share = successes / trials
    shrink = 1.0 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def _checked(logits: Tensor, labels: Tensor) -> int:
    """The number of classes, once everything fits."""
    if logits.ndim != 2:
        raise RcompressError(
            "evaluation",
            f"the network gives {tuple(logits.shape[1:])} values for an image, not one for each class",
            "end it with a Flatten",
        )
    count, classes = logits.shape
    if labels.shape != (count,):
        raise ValueError(f"{tuple(labels.shape)} labels for {count} rows of logits")
    broken = count - int(torch.isfinite(logits).all(dim=1).sum())
    if broken:
        raise RcompressError(
            "evaluation",
            f"the outputs of {broken} of {count} images are not finite numbers",
            "lower the learning rate, or use a wider number format (fp32, bf16)",
        )
    if count and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise RcompressError(
            "evaluation",
            f"the data have labels up to {int(labels.max())}, the network {classes} outputs",
            "name the dataset that the network was trained on with --dataset",
        )
    return classes
