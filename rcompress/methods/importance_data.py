"""What images tell of channels: how the loss would change without them, and how strongly they respond.

Each function takes the network as it stands (evaluation mode, frozen BatchNorm statistics) and leaves it so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import ChannelGraph, ChannelGroup
from rcompress.methods.channel_members import Member

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def taylor_scores(graph: ChannelGraph, batches: Batches) -> dict[str, Tensor]:
    """How the loss changes to first order without a channel, squared (Molchanov et al. 2019, equation 8).

    The square of the sum of weight times gradient over all weights that vanish with the channel, averaged over the
    batches: float32 (width,) by group.
    """
    return _gradient_scores(graph, batches, F.cross_entropy, lambda products: products.sum(1), square=True)


def hessian_scores(graph: ChannelGraph, batches: Batches, generator: torch.Generator) -> dict[str, Tensor]:
    """How the loss grows to second order without a channel (LeCun et al. 1990, Optimal Brain Damage, equation 5).

    Half the sum of squared weight times curvature. The curvature is the diagonal of the Gauss-Newton matrix, which
    for cross-entropy is the Fisher information with labels drawn from the network's own predictions (Martens 2020,
    section 9); it is never negative and asks for no labels. One backward pass estimates the sum of its images'
    squared gradients without bias when their losses carry random signs (Hutchinson 1990).

    Returns:
        float32 (width,) by group.
    """

    def signed(logits: Tensor, _labels: Tensor) -> Tensor:
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator).flatten()
        signs = torch.randint(0, 2, (len(drawn),), generator=generator) * 2.0 - 1.0
        losses = F.cross_entropy(logits, drawn, reduction="none")
        return torch.dot(losses, signs) / math.sqrt(len(drawn))

    return _gradient_scores(graph, batches, signed, lambda products: products.square().sum(1) / 2)


def activation_scores(graph: ChannelGraph, batches: Batches) -> dict[str, Tensor]:
    """Mean |activation| of a channel over images and positions, as the layers that read it see it.

    float32 (width,) by group; several readers are averaged.
    """
    seen: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    readers = {reader.name: reader for group in graph.prunable for reader in group.readers}

    def watch(reader: Member) -> Callable[..., None]:
        axis = -1 if isinstance(reader.layer, nn.Linear) else 1

        def record(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            by_channel = inputs[0].detach().abs().movedim(axis, 0).flatten(1).mean(1) * len(inputs[0])
            seen[reader.name] = seen.get(reader.name, torch.zeros(())) + by_channel
            counts[reader.name] = counts.get(reader.name, 0) + len(inputs[0])

        return record

    hooks = [reader.layer.register_forward_pre_hook(watch(reader)) for reader in readers.values()]  # type: ignore[union-attr]
    try:
        with torch.no_grad():
            for images, _ in batches:
                graph.module(images)
    finally:
        for hook in hooks:
            hook.remove()
    _require(counts)
    means = {name: total / counts[name] for name, total in seen.items()}
    return {group.name: _mean_over(group, means) for group in graph.prunable if group.readers}


def _mean_over(group: ChannelGroup, means: dict[str, Tensor]) -> Tensor:
    total, count = torch.zeros(group.width), torch.zeros(group.width)
    for reader in group.readers:
        total.index_add_(0, reader.roots, means[reader.name][reader.channels])
        count.index_add_(0, reader.roots, torch.ones(len(reader.roots)))
    return total / count


def _gradient_scores(
    graph: ChannelGraph,
    batches: Batches,
    loss: Loss,
    gather: Callable[[Tensor], Tensor],
    square: bool = False,
) -> dict[str, Tensor]:
    """The mean over batches of what ``gather`` makes of weight times gradient, (n, values) -> (n,), by group."""
    totals = {group.name: torch.zeros(group.width) for group in graph.prunable}
    seen = 0
    with _gradients(graph.module):
        for images, labels in batches:
            graph.module.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(graph.module(images), labels))
            for group in graph.prunable:
                found = _group_sum(group, gather)
                totals[group.name] += len(images) * (found.square() if square else found)
            seen += len(images)
    _require(seen)
    return {name: total / seen for name, total in totals.items()}


def _group_sum(group: ChannelGroup, gather: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(group.width)
    for member in group.members:
        for parameter in member.parameters():
            if parameter.grad is not None:
                products = member.rows(parameter, parameter.detach() * parameter.grad)
                total.index_add_(0, member.roots, gather(products))
    return total


@contextmanager
def _gradients(module: nn.Module) -> Iterator[None]:
    """Gradients of the learned parameters inside, none left behind."""
    try:
        with torch.enable_grad():
            yield
    finally:
        module.zero_grad(set_to_none=True)


def _require(seen: Any) -> None:
    if not seen:
        raise RcompressError("prune", "there are no images to score the channels with", "name more of them")
