"""``prune`` in steps, and its named recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli.finetuning import Finetuning
from rcompress.cli.output import Output, launched

if TYPE_CHECKING:
    from rcompress.methods.iterative import Row
    from rcompress.methods.prune import PruneOptions
    from rcompress.training import Settings
    from rcompress.training.start import Start

NAMED_STEPS, NAMED_SHARE, NAMED_EPOCHS = 20, 0.1, 30

Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, help="Prune and fine-tune so many times, each step the same share of what is left."
    ),
]
StepRecipe = Annotated[
    Literal["iterative-10"] | None,
    typer.Option(
        "--recipe",
        help="iterative-10: 10 % of each layer in 20 steps, 30 epochs each at rate 1e-4, taught by the source.",
    ),
]


@dataclass(frozen=True)
class Iteration:
    """What ``--steps`` and ``--recipe`` come to.

    Attributes:
        ratio: what is gone at the end, if anything says so.
        steps: None: not in steps.
        epochs: of each step.
        base: the recipe that the options of fine-tuning change.
    """

    ratio: float | None
    steps: int | None
    epochs: int
    base: Literal["finetune", "iterative-10"]


def iteration(
    recipe: Literal["iterative-10"] | None, steps: int | None, ratio: float | None, epochs: int
) -> Iteration:
    """The options as given, with what the named recipe says of the others.

    Raises:
        BadParameter: steps without fine-tuning, without a ratio, or by several processes.
    """
    if steps is None and recipe is None:
        return Iteration(ratio, None, epochs, "finetune")
    if launched()[1] > 1:
        raise typer.BadParameter(
            "go with one process; torchrun can fine-tune what a step leaves: rcompress train --init",
            param_hint="--steps, --recipe",
        )
    if recipe is None:
        if not epochs:
            raise typer.BadParameter("fine-tune in between; name its length", param_hint="--finetune-epochs")
        if ratio is None:
            raise typer.BadParameter("go with --ratio", param_hint="--steps")
        return Iteration(ratio, steps, epochs, "finetune")
    taken = steps or NAMED_STEPS
    return Iteration(ratio or 1.0 - (1.0 - NAMED_SHARE) ** taken, taken, epochs or NAMED_EPOCHS, recipe)


def pruned_in_steps(
    source: Path,
    start: Start,
    chosen: PruneOptions,
    steps: int,
    tuning: Finetuning,
    settings: Settings,
    target: Path,
    bn_reestimation: bool,
    arch: str | None,
    out: Output,
) -> dict[str, Any]:
    """Prune ``start`` into ``target``; returns what --json prints beside its path."""
    from rcompress.methods.iterative import IterativePlan, log_paths, prune_iteratively

    loss = tuning.loss(start.spec, settings, source, arch)
    plan = IterativePlan(chosen, steps, tuning.recipe(), loss, bn_reestimation)
    try:
        rows = prune_iteratively(start, plan, settings, target, tuning.resume, arch, out)
    except KeyboardInterrupt:
        out.note("the same command with --resume goes on at this step")
        raise
    for row in rows:
        out.note(_line(row))
    out.note(f"log: {' and '.join(str(path) for path in log_paths(target))}")
    return {"steps": rows}


def _line(row: Row) -> str:
    macs = "" if row["macs"] is None else f"{row['macs'] / 1e6:,.1f} M MACs, "
    return (
        f"step {row['step']:>2}  {row['parameters']:,} parameters, {macs}{row['size_bytes']:,} bytes, "
        f"{row['validation_split']} {row['validation_top1_percent']:.2f} %, "
        f"{row['test_split']} {row['test_top1_percent']:.2f} %"
    )
