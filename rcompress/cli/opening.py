"""What commands that change a checkpoint's network have in common: opening it, BatchNorm's recovery, the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcompress.cli.finetuning import Finetuning
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from torch import nn

    from rcompress.artifacts.spec import ModelSpec, ParentFields, Step
    from rcompress.data import Dataset
    from rcompress.training import Settings
    from rcompress.training.start import Start


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
    from rcompress.data import matching_dataset
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
    data = matching_dataset(path, loaded.spec, dataset, data_dir) if needed else None
    return Opened(path, loaded.module, loaded.spec, parent_fields(path, loaded.sha256), data)


def recovered(opened: Opened, settings: Settings, out: Output) -> dict[str, Any]:
    """Measure BatchNorm's statistics anew and say what that gave back; the figures, for the lineage."""
    from rcompress.training.recovery import recover

    recovery = recover(opened.module, opened.spec, opened.start.dataset, settings, out)
    out.note(str(recovery) if recovery else "There is no BatchNorm to re-estimate.")
    return recovery.metrics() if recovery else {}


def completed(
    opened: Opened,
    target: Path,
    step: Step,
    tuning: Finetuning,
    settings: Settings,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    """Fine-tune the changed network if asked to, and write it with ``step``; returns the step's metrics."""
    from rcompress.artifacts.checkpoint import write_checkpoint
    from rcompress.cli.session import say_scores
    from rcompress.training.guidance import Guidance
    from rcompress.training.run import write_trained

    if not tuning.epochs:
        write_checkpoint(target, opened.spec.with_step(step), opened.module.cpu().state_dict())
        return step.metrics
    loss = tuning.loss(opened.spec, settings, opened.path, arch)
    outcome = tuning.run(opened.start, settings, target, step.options, Guidance(loss), out)
    outcome.metrics.update(step.metrics)
    details = {**step.options, **tuning.details(settings, loss)}
    write_trained(target, step.command, opened.spec, outcome, details, opened.parent, step.notes)
    say_scores(out, outcome)
    return outcome.metrics


def say_sizes(out: Output, source: Path, target: Path) -> int:
    """Both files' sizes in one line; returns the bytes of ``target``."""
    from rcompress.measure.size import size_bytes

    before, after = size_bytes(source), size_bytes(target)
    out.note(f"{source.name} {before:,} bytes, {target.name} {after:,} bytes ({after / before:.1%})")
    return after
