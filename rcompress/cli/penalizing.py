"""The options of sparsity-inducing training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rcompress.training.guidance import Constraint
    from rcompress.training.start import Start

PenaltyName = Literal["group-lasso", "bn-scale", "growing"]

Penalty = Annotated[
    PenaltyName | None,
    typer.Option(
        "--sparsity-penalty",
        help="Prepare for pruning: group-lasso (filters and channels), bn-scale (network slimming), growing (on what "
        "`prune --ratio` would take; then prune by that ratio).",
    ),
]
PenaltyStrength = Annotated[
    float | None,
    typer.Option("--penalty-strength", min=0, help="Its factor (1e-4; growing: the factor it grows to, 1)."),
]
PenaltyRatio = Annotated[
    float | None,
    typer.Option("--penalty-ratio", help="growing: share of each layer's channels that is to go."),
]


def require_consistent(penalty: PenaltyName | None, strength: float | None, ratio: float | None) -> None:
    """Refuse what does not go together.

    Raises:
        BadParameter: a strength without a penalty, or a ratio without, or out of range, where one is needed.
    """
    if penalty is None and strength is not None:
        raise typer.BadParameter("goes with --sparsity-penalty", param_hint="--penalty-strength")
    if (ratio is not None) != (penalty == "growing"):
        raise typer.BadParameter("goes with --sparsity-penalty growing", param_hint="--penalty-ratio")
    if ratio is not None and not 0 < ratio < 1:
        raise typer.BadParameter(f"{ratio} is not between 0 and 1", param_hint="--penalty-ratio")


def penalties(
    penalty: PenaltyName | None, strength: float | None, ratio: float | None, start: Start, epochs: int
) -> tuple[Constraint, ...]:
    """What holds the run of ``start``: the penalty named, or nothing.

    Raises:
        RcompressError: the network has nothing to penalise.
    """
    from rcompress.training.penalties import CEILING, STRENGTH, BatchNormScale, GroupLasso, GrowingPenalty

    if penalty is None:
        return ()
    if penalty == "growing":
        from rcompress.methods.doomed import doomed_channels
        from rcompress.methods.prune import PruneOptions

        assert ratio is not None
        doomed = doomed_channels(start.module, start.spec.preprocessing.input_size, PruneOptions(ratio))
        return (GrowingPenalty(doomed, CEILING if strength is None else strength, epochs),)
    kind = GroupLasso if penalty == "group-lasso" else BatchNormScale
    return (kind(STRENGTH if strength is None else strength),)
