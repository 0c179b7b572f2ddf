"""What `prune` does beside choosing channels: scoring them, recovering and writing what is left, telling."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcompress.cli.finetuning import Finetuning
from rcompress.cli.opening import Opened, completed, recovered
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from torch import Tensor

    from rcompress.artifacts.spec import ChoiceSplit
    from rcompress.engines import Backend
    from rcompress.methods.channel_groups import ChannelGraph
    from rcompress.methods.importance import Importance
    from rcompress.methods.prune import PruneReport
    from rcompress.methods.zero_channels import ZeroChannels
    from rcompress.training import Settings

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
    graph.require_prunable()
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
    from rcompress.artifacts.spec import Step

    metrics = {"parameters": report.parameters[1], "macs": report.macs[1], **decision.metrics}
    measured = reestimate and opened.dataset is not None
    if measured:
        metrics |= recovered(opened, settings, out)
    details = {**decision.details, "bn_reestimation": measured}
    step = Step(
        "prune",
        details,
        metrics=metrics,
        notes=notes(report),
        chosen_on=decision.chosen_on,
        **opened.parent,
    )
    return completed(opened, target, step, tuning, settings, arch, out)


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
