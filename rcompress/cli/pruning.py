"""What `prune` does beside choosing channels: opening the source, recovering, fine-tuning, writing, telling."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcompress.cli.finetuning import Finetuning
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rcompress.artifacts.spec import ChoiceSplit, ModelSpec, ParentFields
    from rcompress.data import Dataset
    from rcompress.engines import Backend
    from rcompress.methods.channel_groups import ChannelGraph
    from rcompress.methods.importance import Importance
    from rcompress.methods.prune import PruneReport
    from rcompress.methods.zero_channels import ZeroChannels
    from rcompress.training import Settings
    from rcompress.training.start import Start

GROUPS_TOLD = 5


@dataclass(frozen=True)
class Decision:
    """Why the network has the widths it has.

    Attributes:
        details: what was asked for, for the lineage and a resumed run's identity.
        metrics: what a search found, for the lineage alone.
        chosen_on: the split whose images decided something, if any.
    """

    details: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    chosen_on: ChoiceSplit | None = None


@dataclass(frozen=True)
class Opened:
    """A checkpoint's network, its description, and its data where anything needs them."""

    path: Path
    module: nn.Module
    spec: ModelSpec
    parent: ParentFields
    dataset: Dataset | None

    @property
    def start(self) -> Start:
        """The same, for what cannot do without data."""
        from rcompress.training.start import Start

        assert self.dataset is not None
        return Start(self.module, self.spec, self.dataset, self.parent)


def open_source(
    path: Path,
    arch: str | None,
    dataset: str | None,
    data_dir: Path | None,
    out: Output,
    tuned: bool,
    scored: bool,
    reestimated: bool,
) -> Opened:
    """Open ``path``, with the data that it names (or ``dataset``) as far as they are needed.

    Args:
        tuned: for a fine-tuning, which may be on other classes.
        scored: to score channels by.
        reestimated: for BatchNorm's statistics: where the file names no data, these stay, and it is said.
    """
    from rcompress.artifacts.spec import parent_fields
    from rcompress.models import load_model
    from rcompress.training.start import from_checkpoint

    if tuned:
        start = from_checkpoint(path, arch, dataset, data_dir, out)
        return Opened(path, start.module, start.spec, start.parent, start.dataset)
    loaded = load_model(path, arch)
    known = dataset or loaded.spec.preprocessing.dataset
    if reestimated and not scored and known is None:
        out.note(f"BatchNorm's statistics stay as they were: {path.name} names no dataset (--dataset)")
    needed = scored or (reestimated and known is not None)
    data = _matching(path, loaded.spec, dataset, data_dir) if needed else None
    return Opened(path, loaded.module, loaded.spec, parent_fields(path, loaded.sha256), data)


def _matching(path: Path, spec: ModelSpec, name: str | None, data_dir: Path | None) -> Dataset:
    from rcompress.data import check_matches, dataset_for

    dataset = dataset_for(path, spec.preprocessing, name, data_dir)
    known = spec.preprocessing
    check_matches(dataset, path, known.input_size, spec.num_classes, known.class_names)
    return dataset


def scores_of(opened: Opened, graph: ChannelGraph, importance: Importance, seed: int) -> dict[str, Tensor]:
    """Scores of the channels, from training images where ``importance`` looks at some."""
    from rcompress.methods.importance import NEEDS_IMAGES, score_channels
    from rcompress.methods.scoring_images import scoring_batches

    if importance not in NEEDS_IMAGES:
        return score_channels(graph, importance, seed=seed)
    batches = scoring_batches(opened.start.dataset, opened.spec.preprocessing, seed)
    return score_channels(graph, importance, batches, seed)


def multiple_of(
    text: str | None, default: int, graph: ChannelGraph, backend: Backend, threads: int, out: Output
) -> int:
    """What ``--round-to`` means: a number, or ``auto``, measured and said; ``default`` where it is not given."""
    from rcompress.methods.width_multiple import fastest_multiple

    if text != "auto":
        return int(text or default)
    widths = [group.width for group in graph.prunable]
    measured = fastest_multiple(widths, backend, threads, progress=out)
    out.note(str(measured))
    return measured.multiple


def finish(
    opened: Opened,
    target: Path,
    report: PruneReport,
    decision: Decision,
    tuning: Finetuning,
    settings: Settings,
    reestimate: bool,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    """Recover, fine-tune and write the pruned network of ``opened``; returns the step's metrics."""
    metrics = {"parameters": report.parameters[1], "macs": report.macs[1], **decision.metrics}
    if reestimate and opened.dataset is not None:
        metrics |= _recovered(opened, settings, out)
    details = {**decision.details, "bn_reestimation": reestimate and opened.dataset is not None}
    if tuning.epochs:
        return _tuned(opened, target, details, metrics, tuning, settings, arch, out)
    from rcompress.artifacts.checkpoint import write_checkpoint
    from rcompress.artifacts.spec import Step

    step = Step(
        "prune",
        details,
        metrics=metrics,
        notes=notes(report),
        chosen_on=decision.chosen_on,
        **opened.parent,
    )
    write_checkpoint(target, opened.spec.with_step(step), opened.module.cpu().state_dict())
    return metrics


def _recovered(opened: Opened, settings: Settings, out: Output) -> dict[str, Any]:
    from rcompress.training.recovery import recover

    recovery = recover(opened.module, opened.spec, opened.start.dataset, settings, out)
    out.note(str(recovery) if recovery else "There is no BatchNorm to re-estimate.")
    return recovery.metrics() if recovery else {}


def _tuned(
    opened: Opened,
    target: Path,
    details: dict[str, Any],
    metrics: dict[str, Any],
    tuning: Finetuning,
    settings: Settings,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    from rcompress.cli.session import resumable, say_scores
    from rcompress.training import run_training
    from rcompress.training.guidance import Guidance
    from rcompress.training.run import write_trained

    start = opened.start
    loss = tuning.loss(start.spec, settings, opened.path, arch)
    with resumable(out, target):
        outcome = run_training(
            start.module,
            start.spec,
            start.dataset,
            tuning.recipe(),
            settings,
            target,
            {**start.parent, **details},
            tuning.resume,
            progress=out,
            guidance=Guidance(loss),
        )
    outcome.metrics.update(metrics)
    told = {**details, **tuning.details(settings, loss)}
    write_trained(target, "prune", start.spec, outcome, told, start.parent)
    say_scores(out, outcome)
    return outcome.metrics


def notes(report: PruneReport) -> tuple[str, ...]:
    """What could not be pruned and why: one line for each reason."""
    layers: dict[str, list[str]] = {}
    for name, reason in report.kept.items():
        layers.setdefault(reason, []).append(name)
    return tuple(f"{_named(names)}: not pruned ({reason})" for reason, names in layers.items())


def zero_notes(found: ZeroChannels) -> list[str]:
    """What became of the zero filters: how many constants were handed on, and what stays, one line a reason."""
    gone = sum(map(len, found.removable.values()))
    lines = [
        f"{gone} channels were zero and are gone; {found.merged} handed a constant on to another that stays"
    ]
    stuck: dict[str, dict[str, int]] = {}
    for layer, count, reason in found.stuck:
        stuck.setdefault(reason, {})[layer] = count
    for reason, counts in stuck.items():
        lines.append(f"{sum(counts.values())} zero filters of {_named(list(counts))} stay: {reason}")
    return lines


def _named(names: list[str]) -> str:
    more = len(names) - GROUPS_TOLD
    return ", ".join(names[:GROUPS_TOLD]) + (f" and {more} more" if more > 0 else "")


def say(out: Output, report: PruneReport) -> None:
    """Sizes before and after, and what could not be pruned."""
    old, new = report.parameters
    text = f"parameters {old:,} -> {new:,} ({new / old:.1%})"
    if report.macs[0] and report.macs[1]:
        before, after = report.macs[0] / 1e6, report.macs[1] / 1e6
        text += f", MACs {before:,.1f} M -> {after:,.1f} M ({after / before:.1%})"
    out.note(text)
    for line in notes(report):
        out.note(line)
