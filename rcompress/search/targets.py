"""Widths that meet a target: computed for parameters, MACs and size, measured for latency and accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rcompress.errors import RcompressError
from rcompress.search.allocation import Cost, Widths
from rcompress.search.families import Family, crossing

Quantity = Literal["macs", "parameters", "size_bytes", "latency_ms", "drop_points"]
STRIDE, MEASURED_RESOLUTION = (
    0.15,
    0.01,
)  # of the share to remove: each step is one network built or evaluated


@dataclass(frozen=True)
class Target:
    """What the network is to be.

    Attributes:
        quantity: what of it.
        amount: at most so much; of ``drop_points``, points of top-1 accuracy lost on the data for choices.
        relative: whether ``amount`` is a share of what the whole network has.
    """

    quantity: Quantity
    amount: float
    relative: bool = False

    def limit(self, whole: float) -> float:
        """``amount`` in the quantity's own unit, for a network that has ``whole`` of it before anything goes.

        Raises:
            RcompressError: nothing would have to go.
        """
        limit = self.amount * whole if self.relative else self.amount
        if self.quantity != "drop_points" and limit >= whole:
            raise RcompressError(
                "prune",
                f"the network already meets the target ({self.quantity} {whole:,.4g})",
                "ask for less",
            )
        return limit


@dataclass(frozen=True)
class Fit:
    """What a search found.

    Attributes:
        widths: channels to keep, by group.
        quantity, limit, reached: what was asked for, and what the network of these widths has.
        trials: networks built or evaluated on the way; 0 where all was computed.
        figures: what else was measured, in the records' vocabulary.
    """

    widths: Widths
    quantity: Quantity
    limit: float
    reached: float
    trials: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def with_figures(self, **figures: float) -> Fit:
        """The same, with what was measured afterwards."""
        return replace(self, figures={**self.figures, **figures})

    def metrics(self) -> dict[str, Any]:
        """For a lineage step."""
        target = {"quantity": self.quantity, "limit": self.limit, "reached": self.reached}
        return {"target": {**target, "trials": self.trials}, **self.figures}


def fit_computed(family: Family, cost: Cost, whole: float, target: Target) -> Fit:
    """The widest member of ``family``, one of ``cost`` in the target's unit, that stays within the target.

    Raises:
        RcompressError: the target is met already, or cannot be met.
    """
    limit = target.limit(whole)
    widths = family.within(limit)
    return Fit(widths, target.quantity, limit, cost(widths))


def fit_latency(family: Family, measure: Callable[[Widths], float], target: Target, whole: float) -> Fit:
    """The widest member of ``family`` that ``measure`` finds fast enough, by strides and bisection.

    Args:
        measure: milliseconds of a network of these widths, freshly built.
        whole: those of the whole network, measured likewise.

    Raises:
        RcompressError: the target is met already, or the narrowest member is too slow.
    """
    limit = target.limit(whole)
    asked = _Remembered(measure)
    _, share = crossing(
        lambda share: asked(family.widths(share)) <= limit, family.widths, MEASURED_RESOLUTION, STRIDE
    )
    if share is None:
        raise RcompressError(
            "prune",
            f"the narrowest network of this scope takes {asked(family.widths(1.0)):.3g} ms, "
            f"more than the {limit:.3g} ms asked for",
            "ask for less, add --int8 or more --threads, or use another --backend",
        )
    widths = family.widths(share)
    return Fit(widths, target.quantity, limit, asked(widths), asked.trials)


def fit_drop(family: Family, measure: Callable[[Widths], float], target: Target, whole: float) -> Fit:
    """The narrowest member of ``family`` that loses no more points than the target allows, by strides and bisection.

    Args:
        measure: top-1 accuracy in percent of a network of these widths.
        whole: that of the whole network.

    Raises:
        RcompressError: nothing can go.
    """
    limit = target.limit(whole)
    asked = _Remembered(lambda widths: whole - measure(widths))
    share, _ = crossing(
        lambda share: asked(family.widths(share)) > limit, family.widths, MEASURED_RESOLUTION, STRIDE
    )
    widths = family.widths(share)
    if widths == family.widths(0.0):
        raise RcompressError(
            "prune", f"any cut loses more than {limit:g} points", "allow more, lower --round-to, or fine-tune"
        )
    return Fit(widths, target.quantity, limit, asked(widths), asked.trials)


class _Remembered:
    """A measurement that is made once for equal widths, and counted."""

    def __init__(self, measure: Callable[[Widths], float]) -> None:
        self._measure = measure
        self._known: dict[tuple[tuple[str, int], ...], float] = {}

    def __call__(self, widths: Widths) -> float:
        key = tuple(sorted(widths.items()))
        if key not in self._known:
            self._known[key] = self._measure(widths)
        return self._known[key]

    @property
    def trials(self) -> int:
        return len(self._known)
