"""What an artifact was made from, and by which method: the same method is told by the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rcompress.report.lineage import Step
from rcompress.report.text import printable

REMOVING = ("prune", "sparsify", "factorize")
SAID = (
    "pattern",
    "scheme",
    "importance",
    "scope",
    "kept",
    "block",
    "precision",
    "weight_bits",
    "method",
    "clusters",
)
SAME_FUNCTION = ("export",)
AMOUNT = ("ratio", "sparsity", "share", "rank", "energy")


@dataclass(frozen=True)
class Descent:
    """How an artifact came from its root, the network that was trained or imported.

    Attributes:
        root: SHA-256 of the root.
        removed_by: the steps that took weights away, without their amounts; empty: none did.
        amounts: those, in words.
        otherwise: the other steps that change what the network computes.
    """

    root: str
    removed_by: tuple[str, ...]
    amounts: tuple[str, ...]
    otherwise: tuple[str, ...]

    @property
    def method(self) -> str:
        """All of it in words: ``prune 0.6 l2, quantize int8``; empty for the root itself."""
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
    others = [_words(step, SAID) for step in later if step.get("command") not in (*REMOVING, *SAME_FUNCTION)]
    return Descent(
        root,
        tuple(_words(step, SAID) for step in removing),
        tuple(_amount(step) for step in removing),
        tuple(dict.fromkeys(others)),
    )


def _words(step: Step, names: Sequence[str]) -> str:
    options = step.get("options")
    said = [options.get(name) for name in names] if isinstance(options, Mapping) else []
    words = [step.get("command", "?"), *(value for value in said if value not in (None, False, ""))]
    if isinstance(options, Mapping) and options.get("finetune"):
        words.append("fine-tuned")
    return " ".join(str(printable(word)) for word in words)


def _amount(step: Step) -> str:
    options = step.get("options")
    said = [options.get(name) for name in AMOUNT] if isinstance(options, Mapping) else []
    return " ".join(str(printable(value)) for value in said if value is not None)
