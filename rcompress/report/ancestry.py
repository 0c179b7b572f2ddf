"""What an artifact was made from, and by which method: the same method is told by the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcompress.report.lineage import Step, mapping
from rcompress.report.text import printable

REMOVING = ("prune", "sparsify", "factorize")
SAID = (
    "pattern",
    "scheme",
    "importance",
    "scope",
    "schedule",
    "kept",
    "block",
    "precision",
    "weight_bits",
    "method",
    "clusters",
)
USUAL = ("one-shot", "cpu")
"""What goes without saying: the schedule and the profile that nobody chose."""
USUAL_WIDTHS = 16
"""Nor the multiple that pruned widths keep to."""
MENDED = {"equalize": "equalized", "adaround": "adaround", "bias_correction": "bias-corrected"}
SAME_FUNCTION = ("export",)
AMOUNT = ("ratio", "sparsity", "share", "rank", "energy")


@dataclass(frozen=True)
class Descent:
    """How an artifact came from its root, the network that was trained or imported.

    Attributes:
        root: SHA-256 of the root.
        removed_by: the steps that took weights away, without their amounts; empty: none did.
        amounts: those, in words: ``0.6``, or of a target ``0.5x macs``.
        otherwise: the other steps that change what the network computes.
    """

    root: str
    removed_by: tuple[str, ...]
    amounts: tuple[str, ...]
    otherwise: tuple[str, ...]

    @property
    def method(self) -> str:
        """All of it in words: ``prune 0.6 l2, quantize W8A8 minmax``; empty for the root itself."""
        removed = (
            " ".join(filter(None, [*step.split(" ", 1)[:1], amount, *step.split(" ", 1)[1:]]))
            for step, amount in zip(self.removed_by, self.amounts, strict=True)
        )
        return ", ".join([*removed, *self.otherwise])


def descent(sha256: str, lineage: Sequence[Step]) -> Descent:
    """Where the artifact of ``sha256`` comes from; without a history it is a root itself."""
    later = lineage[1:]
    root = str(later[0].get("parent_sha256") or sha256) if later else sha256
    removing = [step for step in later if step.get("command") in REMOVING]
    others = [_words(step) for step in later if step.get("command") not in (*REMOVING, *SAME_FUNCTION)]
    return Descent(
        root,
        tuple(_words(step) for step in removing),
        tuple(_amount(step) for step in removing),
        tuple(dict.fromkeys(others)),
    )


def _words(step: Step) -> str:
    options = mapping(step.get("options"))
    said = (*(options.get(name) for name in SAID), *_how_pruned(options))
    words = [step.get("command", "?"), *said, *_quantized(options)]
    for done, word in (("qat", "qat"), ("finetune", "fine-tuned")):
        if options.get(done):
            words.append(word)
    return " ".join(str(printable(word)) for word in words if word not in (None, False, "", *USUAL))


def _how_pruned(options: Mapping[str, Any]) -> list[str]:
    """``to multiples of 4``, ``in 3 steps``: what else makes pruning by the same share another method."""
    rounded, steps = options.get("round_to"), options.get("steps")
    widths = "to any width" if rounded == 1 else f"to multiples of {rounded}"
    return [
        *([widths] if rounded not in (None, USUAL_WIDTHS) else []),
        *([f"in {steps} steps"] if isinstance(steps, int) and steps > 1 else []),
    ]


def _quantized(options: Mapping[str, Any]) -> list[object]:
    """``W4A8 minmax adaround``: the bits of weights and activations, and what sets one quantization apart."""
    how = mapping(options.get("quantization"))
    if not how:
        return []
    bits = mapping(how.get("bits"))
    activations = bits.get("activations", True)
    return [
        f"W{bits.get('weights', 8)}A{8 if activations else 32}",
        how.get("method") if activations else None,
        None if how.get("per_channel", True) else "per-tensor",
        f"groups of {how['group']}" if how.get("group") else None,
        how.get("profile"),
        "mixed" if bits.get("wide") or bits.get("skip") else None,
        *(word for name, word in MENDED.items() if how.get(name)),
    ]


def _amount(step: Step) -> str:
    options = mapping(step.get("options"))
    said = [options.get(name) for name in AMOUNT]
    if target := mapping(options.get("target")):
        relative = "x" if target.get("relative") else ""
        said.append(f"{target.get('amount')}{relative} {target.get('quantity')}")
    return " ".join(str(printable(value)) for value in said if value is not None)
