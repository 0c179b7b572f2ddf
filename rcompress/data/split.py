"""Which images serve what: seeded, class-balanced, the same in every command."""

from __future__ import annotations

import torch
from torch import Tensor

VALIDATION_FRACTION = 0.1
SPLIT_SEED = 20_150_512  # fixed: every command on every machine must carve the same images


def balanced_indices(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices of ``count`` images, as evenly over the classes as they allow, in random order.

    Args:
        labels: int64 (N,).
        count: how many; at most N.
        seed: of the choice.

    Returns:
        int64 (count,). Image k of each class comes before image k + 1 of any class, so a prefix is balanced too.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    rank = torch.empty(len(labels), dtype=torch.int64)
    ordered = labels[shuffled]
    for label in torch.unique(ordered):
        where = (ordered == label).nonzero().flatten()
        rank[where] = torch.arange(len(where))
    return shuffled[torch.argsort(rank, stable=True)[:count]]


def carve(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """(the rest, a class-balanced ``fraction``) as sorted indices, by the fixed seed."""
    count = max(1, round(len(labels) * fraction))
    part = balanced_indices(labels, count, SPLIT_SEED)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[part] = False
    return kept.nonzero().flatten(), part.sort().values
