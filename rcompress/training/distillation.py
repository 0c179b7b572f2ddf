"""Learning from a teacher's outputs (Hinton, Vinyals and Dean 2015, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rcompress.errors import RcompressError
from rcompress.training.guidance import Batch

Weighting = Literal["mean", "confidence"]
TEMPERATURE, ALPHA = 5.0, 0.7


class Logits(Protocol):
    """Where a teacher's logits come from: a `Teacher`'s forward passes, or what they left before."""

    def of(self, batch: Batch) -> Tensor:
        """float32 (members, N, classes), without a gradient."""
        ...

    def identity(self) -> dict[str, Any]:
        """Primitives that tell this teacher from others."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """What a student learns from the labels alone, beside its teacher's features."""

    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """See `Loss`."""
        return F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)

    def identity(self) -> dict[str, Any]:
        """See `Loss`."""
        return {"loss": "labels", "label_smoothing": self.label_smoothing}


@dataclass(frozen=True)
class LogitDistillation:
    """``alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy``, both softened by T in the first term.

    Attributes:
        teacher: gives the logits.
        temperature: T > 0; higher values show more of what the teacher thinks of the wrong classes.
        alpha: weight of the teacher, 0..1.
        weighting: of several teachers' softened probabilities: their mean, or ``confidence``: more weight, image
            by image, to those that are right (Zhang et al. 2022, Confidence-Aware Multi-Teacher Knowledge
            Distillation, equation 3).
        label_smoothing: of the cross-entropy.

    Raises:
        RcompressError: a value is out of range.
    """

    teacher: Logits
    temperature: float = TEMPERATURE
    alpha: float = ALPHA
    weighting: Weighting = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RcompressError("--temperature", f"{self.temperature} is not above 0", "5 is usual")
        if not 0 <= self.alpha <= 1:
            raise RcompressError("--alpha", f"{self.alpha} is not within 0 and 1", "0.7 is usual")
        if self.weighting not in get_args(Weighting):
            raise RcompressError("distillation", f"unknown weighting {self.weighting!r}", "use mean")

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of the student's ``logits`` (N, classes) float32: a scalar."""
        targets = softened(self.teacher.of(batch), self.temperature, self.weighting, batch.targets)
        learned = F.log_softmax(logits / self.temperature, dim=1)
        soft = F.kl_div(learned, targets, reduction="batchmean") * self.temperature**2
        hard = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)
        return self.alpha * soft + (1.0 - self.alpha) * hard

    def identity(self) -> dict[str, Any]:
        """See `Loss`."""
        own = {name: getattr(self, name) for name in ("temperature", "alpha", "weighting", "label_smoothing")}
        return {"loss": "logits", **own, **self.teacher.identity()}


@torch.no_grad()
def softened(answers: Tensor, temperature: float, weighting: Weighting, targets: Tensor) -> Tensor:
    """What several teachers say together: probabilities (N, classes) at ``temperature``.

    Args:
        answers: logits (members, N, classes) float32.
        temperature: divides them.
        weighting: see `LogitDistillation`.
        targets: labels (N,), or blended one-hot rows (N, classes).
    """
    probabilities = F.softmax(answers / temperature, dim=2)
    if weighting == "mean" or len(answers) == 1:
        return probabilities.mean(dim=0)
    return (confidence(answers, targets).unsqueeze(2) * probabilities).sum(dim=0)


def confidence(answers: Tensor, targets: Tensor) -> Tensor:
    """Weights (M, N) of M > 1 teachers that sum to 1: ``(1 - softmax of their losses) / (M - 1)``."""
    losses = torch.stack([F.cross_entropy(answer, targets, reduction="none") for answer in answers])
    return (1.0 - F.softmax(losses, dim=0)) / (len(answers) - 1)
