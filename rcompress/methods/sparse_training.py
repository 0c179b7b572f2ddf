"""From a start to a sparse network: zeros, BatchNorm statistics measured anew, fine-tuning under masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from rcompress.errors import RcompressError
from rcompress.methods.sparsify import (
    BlockSparse,
    Filters,
    LayerSparsity,
    Unstructured,
    choose_masks,
    sparsify,
    sparsity_table,
)
from rcompress.progress import SILENT, Progress
from rcompress.training import Outcome, Recipe, Settings, run_training
from rcompress.training.constraints import GrowMasks, HoldMasks, Masks
from rcompress.training.guidance import Constraint, Guidance, Loss
from rcompress.training.recovery import Recovery, recover
from rcompress.training.start import Start

Schedule = Literal["one-shot", "cubic"]
SparsePattern = Unstructured | BlockSparse | Filters


@dataclass(frozen=True)
class SparsifyRequest:
    """What to zero and when.

    Attributes:
        pattern: which weights go.
        schedule: ``one-shot``, or ``cubic``: `Unstructured` sparsity that grows during fine-tuning.
        ignore: layers left dense.
        bn_reestimation: BatchNorm's statistics are measured anew before fine-tuning.
    """

    pattern: SparsePattern
    schedule: Schedule = "one-shot"
    ignore: tuple[str, ...] = ()
    bn_reestimation: bool = True

    def options(self) -> dict[str, Any]:
        """For a lineage step and a run's identity: primitives."""
        named = {"pattern": self.pattern.name, **asdict(self.pattern)}
        return {
            **named,
            "schedule": self.schedule,
            "ignore": list(self.ignore),
            "bn_reestimation": self.bn_reestimation,
        }


@dataclass(frozen=True)
class Tuning:
    """How to fine-tune; ``loss`` None: the labels alone."""

    recipe: Recipe
    loss: Loss | None = None
    resume: bool = False


@dataclass(frozen=True)
class Sparsified:
    """A sparse network, on the CPU in evaluation mode, and how it came about.

    Attributes:
        table: every layer's zeros.
        recovery: what BatchNorm's re-estimation gave back, None where there was none.
        outcome: of the fine-tuning, None where there was none.
    """

    module: nn.Module
    table: list[LayerSparsity]
    recovery: Recovery | None
    outcome: Outcome | None


def zeroed(module: nn.Module, request: SparsifyRequest) -> Sparsified:
    """Zero weights of ``module`` in place and leave it at that: for networks whose data are not there.

    Raises:
        RcompressError: nothing can be sparsified.
    """
    _, dense = sparsify(module, request.pattern, request.ignore)
    return Sparsified(module, sparsity_table(module, dense), None, None)


def sparsified(
    start: Start,
    request: SparsifyRequest,
    settings: Settings,
    target: Path,
    tuning: Tuning | None = None,
    progress: Progress = SILENT,
) -> Sparsified:
    """Zero weights of ``start.module`` in place, and fine-tune it so that they stay zero.

    Args:
        target: the checkpoint to be written by the caller; a fine-tuning's journal goes beside it.
        tuning: None for no fine-tuning.

    Raises:
        RcompressError: nothing can be sparsified, the schedule needs a longer fine-tuning, or the run fails.
    """
    if request.schedule == "cubic":
        return _grown(start, request, settings, target, tuning, progress)
    masks, dense = sparsify(start.module, request.pattern, request.ignore)
    recovery = None
    if request.bn_reestimation:
        recovery = recover(start.module, start.spec, start.dataset, settings, progress)
        progress.note(str(recovery) if recovery else "There is no BatchNorm to re-estimate.")
    outcome = None
    if tuning is not None:
        outcome = _tuned(start, request, settings, target, tuning, HoldMasks(masks), progress)
    module = start.module.cpu().eval() if outcome is None else outcome.module
    return Sparsified(module, sparsity_table(module, dense), recovery, outcome)


def _grown(
    start: Start,
    request: SparsifyRequest,
    settings: Settings,
    target: Path,
    tuning: Tuning | None,
    progress: Progress,
) -> Sparsified:
    pattern = request.pattern
    if not isinstance(pattern, Unstructured) or tuning is None:
        raise RcompressError(
            "--schedule cubic",
            "is of single weights, while fine-tuning",
            "give --sparsity and --finetune-epochs",
        )
    _, dense = choose_masks(start.module, pattern, request.ignore)

    def choose(module: nn.Module, sparsity: float) -> Masks:
        return choose_masks(module, replace(pattern, sparsity=sparsity), request.ignore)[0]

    growth = GrowMasks(choose, pattern.sparsity, tuning.recipe.epochs)
    outcome = _tuned(start, request, settings, target, tuning, growth, progress)
    if not growth.admits():
        raise RcompressError("--schedule cubic", "needs more steps than this", "raise --finetune-epochs")
    return Sparsified(outcome.module, sparsity_table(outcome.module, dense), None, outcome)


def _tuned(
    start: Start,
    request: SparsifyRequest,
    settings: Settings,
    target: Path,
    tuning: Tuning,
    constraint: Constraint,
    progress: Progress,
) -> Outcome:
    return run_training(
        start.module,
        start.spec,
        start.dataset,
        tuning.recipe,
        settings,
        target,
        {**start.parent, **request.options()},
        tuning.resume,
        progress=progress,
        guidance=Guidance(tuning.loss, (constraint,)),
    )
