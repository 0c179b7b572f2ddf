"""Pruning in steps: remove some, fine-tune, and again; each step leaves a checkpoint, and a killed run goes on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.artifacts.files import sha256_of, write_atomic
from rcompress.artifacts.spec import ParentFields, parent_fields
from rcompress.errors import RcompressError
from rcompress.measure.size import size_bytes
from rcompress.measure.static import module_metrics
from rcompress.methods.channel_groups import ChannelGraph
from rcompress.methods.channel_selection import Scores, kept_width, units_to_remove, widths_by_ratio
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.importance import NEEDS_IMAGES, score_channels
from rcompress.methods.prune import PruneOptions, choose_widths, nothing_goes
from rcompress.methods.scoring_images import scoring_batches
from rcompress.models import load_model
from rcompress.progress import SILENT, Progress
from rcompress.training import Outcome, Recipe, Settings, run_training
from rcompress.training.guidance import Guidance, Loss
from rcompress.training.journal import Journal
from rcompress.training.recovery import recover
from rcompress.training.run import write_trained
from rcompress.training.start import Start

Row = dict[str, Any]


@dataclass(frozen=True)
class IterativePlan:
    """What every step does.

    Attributes:
        options: of the pruning; ``ratio`` is what is gone after the last step.
        steps: each removes the same share of what is left: ``1 - (1 - ratio) ** (1 / steps)``.
        recipe: of the fine-tuning in each step.
        loss: of the fine-tuning; None for the labels alone.
        bn_reestimation: BatchNorm's statistics are measured anew before each fine-tuning.
    """

    options: PruneOptions
    steps: int
    recipe: Recipe
    loss: Loss | None = None
    bn_reestimation: bool = True

    def removed_after(self, step: int) -> float:
        """Share of the original channels that is gone after ``step`` (0..steps), before any rounding."""
        return float(1.0 - (1.0 - self.options.ratio) ** (step / self.steps))

    def details(self, step: int, settings: Settings) -> dict[str, Any]:
        """For the lineage of ``step``, by which it is known again: primitives."""
        said = {
            **asdict(self.options),
            "step": step,
            "steps": self.steps,
            "finetune": asdict(self.recipe),
            "precision": settings.precision,
            "training_seed": settings.seed,
            "bn_reestimation": self.bn_reestimation,
            **({"distillation": self.loss.identity()} if self.loss else {}),
        }
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain


def prune_iteratively(
    start: Start,
    plan: IterativePlan,
    settings: Settings,
    output: Path,
    resume: bool = False,
    own_arch: str | None = None,
    progress: Progress = SILENT,
) -> list[Row]:
    """Prune ``start`` in steps into ``output``, which is the last step's checkpoint.

    Beside it lie ``NAME-step01.pth`` and so on, each with its own learning curves, and the log ``NAME.steps.csv`` and
    ``NAME.steps.jsonl``, which is made from the steps' checkpoints and so has each step once.

    Args:
        start: the network with its data; its module is changed.
        resume: steps whose checkpoints are there are not done again, and within a step its epochs are not. Without it
            everything is made anew.
        own_arch: the user's architecture, where the network was built by it.

    Returns:
        The log's rows: step, parameters, size_bytes, macs, validation_top1_percent, test_top1_percent, and the names
        of the splits that these two were taken on.

    Raises:
        RcompressError: the network cannot be pruned, a step's checkpoint is another run's, or a run fails.
    """
    input_size = start.spec.preprocessing.input_size
    graph = find_groups(start.module, input_size, plan.options.keep_residual, plan.options.ignore)
    graph.require_prunable()
    _require_effect(graph, plan.options)
    widths = {group.name: group.width for group in graph.prunable}
    if not resume:
        for number in range(1, plan.steps + 1):
            Journal.discard(step_path(output, number, plan.steps))
    rows: list[Row] = []
    for number in range(1, plan.steps + 1):
        path = step_path(output, number, plan.steps)
        details = plan.details(number, settings)
        if resume and _is_done(path, details, start.parent):
            Journal.discard(path)  # killed between the checkpoint and this, a run leaves its state
        else:
            progress.note(f"step {number} of {plan.steps}")
            _step(start, plan, settings, number, path, widths, resume, progress)
        start = _opened(path, start, own_arch)
        rows.append(_row(number, path, start))
        _write_log(output, rows)
    write_atomic(output, path.read_bytes())
    return rows


def step_path(output: Path, step: int, steps: int) -> Path:
    """``NAME.pth`` -> ``NAME-step01.pth``."""
    return output.with_name(f"{output.stem}-step{step:0{max(2, len(str(steps)))}}{output.suffix}")


def log_paths(output: Path) -> tuple[Path, Path]:
    """The log beside ``output``: comma-separated, and a line of JSON for each step."""
    return output.with_suffix(".steps.csv"), output.with_suffix(".steps.jsonl")


def _is_done(path: Path, details: Mapping[str, Any], parent: ParentFields) -> bool:
    """Whether ``path`` is this step of this run; an earlier run's, which began elsewhere, is not.

    Raises:
        RcompressError: it starts where this step does, but was made with other options.
    """
    if not path.exists():
        return False
    lineage = read_checkpoint(path).spec.lineage
    if not lineage or lineage[-1].parent_sha256 != parent.get("parent_sha256"):
        return False
    if lineage[-1].options != details:
        raise RcompressError(
            path, "belongs to a run with other options", "use the same options, or leave --resume out"
        )
    return True


def _opened(path: Path, before: Start, own_arch: str | None) -> Start:
    loaded = load_model(path, own_arch)
    return Start(loaded.module, loaded.spec, before.dataset, parent_fields(path, loaded.sha256))


def _step(
    start: Start,
    plan: IterativePlan,
    settings: Settings,
    number: int,
    path: Path,
    widths: Mapping[str, int],
    resume: bool,
    progress: Progress,
) -> None:
    """Prune ``start.module`` in place, fine-tune it, write ``path``."""
    _cut(start, plan, number, widths, progress)
    figures: dict[str, Any] = dict(module_metrics(start.module, start.spec.preprocessing.input_size))
    if plan.bn_reestimation:
        recovery = recover(start.module, start.spec, start.dataset, settings, progress)
        if recovery is not None:
            progress.note(str(recovery))
            figures |= recovery.metrics()
    details = plan.details(number, settings)
    outcome: Outcome = run_training(
        start.module,
        start.spec,
        start.dataset,
        plan.recipe,
        settings,
        path,
        {**start.parent, **details},
        resume,
        progress=progress,
        guidance=Guidance(plan.loss),
    )
    outcome.metrics.update(figures)
    write_trained(path, "prune", start.spec, outcome, details, start.parent)


def _cut(
    start: Start, plan: IterativePlan, number: int, widths: Mapping[str, int], progress: Progress
) -> None:
    options = plan.options
    input_size = start.spec.preprocessing.input_size
    graph = find_groups(start.module, input_size, options.keep_residual, options.ignore)
    batches = None
    if options.importance in NEEDS_IMAGES:
        batches = scoring_batches(start.dataset, start.spec.preprocessing, options.seed)
    scores = score_channels(graph, options.importance, batches, options.seed)
    groups = [group for group in graph.prunable if group.name in scores]
    removed = units_to_remove(groups, scores, _step_widths(graph, scores, plan, number, widths))
    if any(removed.values()):
        graph.cut(removed)
    else:
        progress.note(f"Widths stay in this step: {options.round_to} is their smallest change (--round-to).")


def _step_widths(
    graph: ChannelGraph, scores: Scores, plan: IterativePlan, number: int, original: Mapping[str, int]
) -> dict[str, int]:
    """Local: what `removed_after` leaves of the original widths, so that rounding does not add up.

    Global: a share of all channels with scores that are left.
    """
    options, gone = plan.options, plan.removed_after(number)
    if options.scope == "global":
        scored = [group for group in graph.prunable if group.name in scores]
        left = sum(group.width for group in scored) / sum(original[group.name] for group in scored)
        share = max(1e-6, 1.0 - (1.0 - gone) / left)
        return choose_widths(graph, scores, replace(options, ratio=share))
    return {
        group.name: min(group.width, kept_width(original[group.name], gone, options.round_to, group.blocks))
        for group in graph.prunable
    }


def _require_effect(graph: ChannelGraph, options: PruneOptions) -> None:
    """Refuse, before any training, steps that remove nothing by rounding; ``global`` shows it in each step only."""
    widths = widths_by_ratio(graph.prunable, options.ratio, options.round_to)
    if options.scope == "local" and all(widths[group.name] == group.width for group in graph.prunable):
        raise nothing_goes()


def _row(number: int, path: Path, start: Start) -> Row:
    step = start.spec.lineage[-1]
    return {
        "step": number,
        "checkpoint": path.name,
        "sha256": sha256_of(path),
        "parameters": step.metrics["parameters"],
        "size_bytes": size_bytes(path),
        "macs": step.metrics.get("macs"),
        "validation_top1_percent": step.metrics["validation_top1_percent"],
        "validation_split": step.chosen_on,
        "test_top1_percent": step.metrics["top1_percent"],
        "test_split": start.spec.report_split,
    }


def _write_log(output: Path, rows: Sequence[Row]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    as_csv, as_json = log_paths(output)
    write_atomic(as_csv, table.getvalue().encode())
    write_atomic(as_json, "".join(json.dumps(row) + "\n" for row in rows).encode())
