"""What a student is to learn from its teacher, put together for a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.training.distillation import (
    ALPHA,
    TEMPERATURE,
    CrossEntropy,
    LogitDistillation,
    Logits,
    Weighting,
)
from rcompress.training.feature_distillation import (
    WEIGHTS,
    FeatureDistillation,
    FeatureTerm,
    Pairs,
    WatchedTeacher,
    guidance_of,
)
from rcompress.training.guidance import Guidance, Loss
from rcompress.training.recipe import Recipe
from rcompress.training.teachers import Teacher

LossName = Literal["logits", "hints", "attention", "relational"]


@dataclass(frozen=True)
class Lesson:
    """What is learned, and with which weights.

    Attributes:
        losses: by name, with the weight of each term on features (None: the usual one, `WEIGHTS`); ``logits`` has
            its weight in ``alpha``. Without it the outputs are learned from the labels alone.
        temperature, alpha, weighting: of the logits (`LogitDistillation`).
        pairs: (student's layer, teacher's layer) for hints and attention; none: chosen by size.
    """

    losses: Mapping[LossName, float | None]
    temperature: float = TEMPERATURE
    alpha: float = ALPHA
    weighting: Weighting = "mean"
    pairs: Pairs = ()

    def __post_init__(self) -> None:
        if not self.losses or self.losses.keys() - set(get_args(LossName)):
            raise RcompressError("--loss", "names no known loss", f"use {', '.join(get_args(LossName))}")
        if any(not 0 < weight < math.inf for weight in self.features.values()):
            raise RcompressError("--loss", "a weight is not above 0", "leave a loss out to do without it")

    @property
    def features(self) -> dict[FeatureTerm, float]:
        """The terms on features, with their weights."""
        given = ((name, self.losses[name]) for name in WEIGHTS if name in self.losses)
        return {name: WEIGHTS[name] if weight is None else weight for name, weight in given}

    def options(self) -> dict[str, Any]:
        """Primitives for a model's history."""
        logits = {name: getattr(self, name) for name in ("temperature", "alpha", "weighting")}
        return {"losses": list(self.losses), "feature_weights": self.features} | (
            logits if "logits" in self.losses else {}
        )


def guidance_for(
    lesson: Lesson,
    teacher: Teacher,
    recipe: Recipe,
    input_size: tuple[int, int, int],
    cached: Logits | None = None,
) -> Guidance:
    """How a run learns ``lesson`` from ``teacher``.

    Args:
        lesson: what.
        teacher: from whom.
        recipe: gives the label smoothing, and the weight decay of what is trained along.
        input_size: (C, H, W) of the student's images.
        cached: the teacher's logits, where they are known already.

    Raises:
        RcompressError: features are asked of several teachers, of a file that shows none, or of a cache.
    """
    if not lesson.features:
        return Guidance(loss=_base(lesson, cached or teacher, recipe))
    if cached is not None:
        raise RcompressError(
            "--cache-teacher", "keeps logits, not features", "leave it out, or use --loss logits alone"
        )
    watched = WatchedTeacher(teacher)
    base = _base(lesson, watched, recipe)
    return guidance_of(FeatureDistillation(base, watched, lesson.features, input_size, lesson.pairs), recipe)


def _base(lesson: Lesson, logits: Logits, recipe: Recipe) -> Loss:
    if "logits" not in lesson.losses:
        return CrossEntropy(recipe.label_smoothing)
    return LogitDistillation(
        logits, lesson.temperature, lesson.alpha, lesson.weighting, recipe.label_smoothing
    )


class Ensemble(nn.Module):
    """A teacher as one network to be scored: log of the mean of its members' probabilities."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, classes) from the student's inputs (N, C, H, W)."""
        shares = torch.log_softmax(self.teacher.logits(inputs), dim=2)
        return torch.logsumexp(shares, dim=0) - torch.log(torch.tensor(float(len(shares))))
