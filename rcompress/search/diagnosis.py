"""What a diagnosis says: layers in their order and by their price, and where two networks part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rcompress.measure.paired import Paired
from rcompress.search.inner_tensors import Distance


@dataclass(frozen=True)
class LayerReport:
    """One layer of B beside the same layer of A.

    Attributes:
        layer, operator, stage: which it is.
        distance: of its output, all that comes before it being B's; None: not shown by both, or of other widths.
        own: of its output where this layer alone is B's; None: it has no version of its own.
        cost: accuracy where this layer alone is B's, against A's.
        loss_increase: the same for the mean cross entropy, in nats.
    """

    layer: str
    operator: str
    stage: str
    distance: Distance | None
    own: Distance | None = None
    cost: Paired | None = None
    loss_increase: float | None = None

    @property
    def price(self) -> tuple[float, float, float]:
        """What ranks it: points lost, loss added, noise of its own (or, where that is not known, all noise)."""
        lost = -math.inf if self.cost is None else -self.cost.difference_percent
        added = -math.inf if self.loss_increase is None else self.loss_increase
        noisy = self.own or self.distance
        return lost, added, -math.inf if noisy is None else -noisy.snr_db

    def to_dict(self) -> dict[str, Any]:
        """Primitives; an infinite ratio (no noise at all) is None."""
        told: dict[str, Any] = {"layer": self.layer, "operator": self.operator, "stage": self.stage}
        if self.distance is not None:
            told |= self.distance.metrics()
        if self.own is not None:
            told["own_snr_db"] = self.own.metrics()["snr_db"]
        if self.cost is not None:
            told |= {**self.cost.metrics(), "loss_increase": self.loss_increase}
        return told


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        layers: in the order of the network.
        output: the logits, as a layer.
        whole: accuracy of B against A on the same images.
        top1_percent: of A and of B.
        part_below_db: the ratio under which two tensors have parted.
        notes: what could not be compared, and why.
        context: the data and the conditions.
    """

    layers: tuple[LayerReport, ...]
    output: LayerReport
    whole: Paired
    top1_percent: tuple[float, float]
    part_below_db: float
    notes: tuple[str, ...]
    context: dict[str, Any]

    @property
    def ranked(self) -> list[LayerReport]:
        """The layers, the most expensive first."""
        return sorted(self.layers, key=lambda layer: layer.price, reverse=True)

    @property
    def parting(self) -> LayerReport | None:
        """The first layer at which the two part; None: they do not."""
        for layer in (*self.layers, self.output):
            if layer.distance is not None and layer.distance.snr_db < self.part_below_db:
                return layer
        return None

    @property
    def said(self) -> str:
        """Where they part, in a sentence."""
        parting = self.parting
        if parting is not None and parting.distance is not None:
            alone = "" if parting.own is None else f", {_decibels(parting.own)} by this layer alone"
            stage = "" if parting.stage == parting.layer else f" ({parting.stage})"
            return f"they part at {parting.layer}{stage}: {_decibels(parting.distance)} there{alone}"
        shown = [layer for layer in (*self.layers, self.output) if layer.distance is not None]
        worst = min(shown, key=lambda layer: layer.distance.snr_db if layer.distance else math.inf)
        assert worst.distance is not None
        return (
            f"they part nowhere: the lowest ratio is {_decibels(worst.distance)} at {worst.layer}, "
            f"parting begins below {self.part_below_db:g} dB"
        )

    def to_dict(self) -> dict[str, Any]:
        """Primitives, layers in the order of their price."""
        parting = self.parting
        return {
            **self.context,
            "top1_percent_a": self.top1_percent[0],
            "top1_percent_b": self.top1_percent[1],
            **self.whole.metrics(),
            "part_below_db": self.part_below_db,
            "first_parting": parting and {"layer": parting.layer, "stage": parting.stage},
            "output": self.output.to_dict(),
            "layers": [layer.to_dict() for layer in self.ranked],
            "notes": list(self.notes),
        }


def _decibels(distance: Distance) -> str:
    if math.isfinite(distance.snr_db):
        return f"{distance.snr_db:.1f} dB"
    return "no noise at all" if distance.snr_db > 0 else "nothing but noise"
