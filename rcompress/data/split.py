"""Which images serve what: seeded, class-balanced, the same in every command."""

from __future__ import annotations

import math

import torch
from torch import Tensor

VALIDATION_FRACTION = 0.1
SPLIT_SEED = 20_150_512  # fixed: every command on every machine must carve the same images
MOST_OF_A_CLASS = 1.5
"""A rare class gives at most this many times its share: even shares would take all of it."""


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
    """(the rest, a class-balanced ``fraction``) as sorted indices, by the fixed seed; rare classes are in both."""
    count = max(1, round(len(labels) * fraction))
    order = balanced_indices(labels, len(labels), SPLIT_SEED)
    part = order[torch.argsort(_beyond_its_share(labels[order], fraction), stable=True)[:count]]
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[part] = False
    return kept.nonzero().flatten(), part.sort().values


def _beyond_its_share(labels: Tensor, fraction: float) -> Tensor:
    """Of each image in the order of ``labels``, whether its class has given all that it may: int64 (N,), 0 or 1."""
    beyond = torch.zeros_like(labels)
    for label in torch.unique(labels):
        where = (labels == label).nonzero().flatten()
        share = min(len(where) - 1, math.ceil(MOST_OF_A_CLASS * fraction * len(where)))
        beyond[where[share:]] = 1
    return beyond
