"""How much each channel matters: one score for each unit of a group, over all layers that share it.

Fixed weights (the padding shortcut's) have no say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.methods.channel_groups import ChannelGraph, ChannelGroup
from rcompress.methods.channel_members import Member
from rcompress.methods.importance_data import Batches, activation_scores, hessian_scores, taylor_scores
from rcompress.models.cifar_resnet import FixedShortcut

Importance = Literal["l1", "l2", "bn-scale", "fpgm", "lamp", "taylor", "hessian", "activation", "random"]
NEEDS_IMAGES = ("taylor", "hessian", "activation")
RELATIVE = ("l1", "l2", "fpgm", "activation")  # depend on the layer's size: see `comparable`


def score_channels(
    graph: ChannelGraph, importance: Importance, batches: Batches | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Scores of all prunable groups' units by ``importance``; the lowest go first.

    - ``l1``, ``l2``: sum of the absolute or squared weights that vanish with the channel (Li et al. 2017; over
      coupled layers, Fang et al. 2023, section 3.3).
    - ``bn-scale``: mean |gamma| of the BatchNorm layers that scale the channel (Liu et al. 2017, Network Slimming,
      section 3); a group without such a layer gets no scores.
    - ``fpgm``: sum of the distances to the other filters, those of coupled layers joined into one (He et al. 2019,
      Filter Pruning via Geometric Median, section 3.3): a filter near the median can be replaced by the others.
    - ``lamp``: l2 divided by the sum of all l2 that are not lower (Lee et al. 2021, section 2).
    - ``taylor``, ``hessian``, ``activation``: see `rcompress.methods.importance_data`.
    - ``random``: the baseline that each of them must beat.

    Args:
        graph: of a network in evaluation mode, which stays as it is.
        batches: normalised images (N, C, H, W) float32 and labels (N,) int64 of the training split.
        seed: of ``random``, and of the random signs and labels of ``hessian``.

    Returns:
        float32 (units,) by group; a unit of several channels has their mean.

    Raises:
        RcompressError: nothing can be pruned, or the importance needs images and there are none, or it can tell
            nothing of this network.
    """
    graph.require_prunable()
    units = {}
    for name, scores in _channel_scores(graph, importance, batches, seed).items():
        units[name] = scores.view(graph[name].blocks, -1).mean(0)
    if not units:
        raise RcompressError(
            f"--importance {importance}", "finds nothing to score in this network", "choose another one"
        )
    return {name: _lamp(scores) for name, scores in units.items()} if importance == "lamp" else units


def comparable(scores: Mapping[str, Tensor], importance: Importance) -> dict[str, Tensor]:
    """The scores as one ranking over all groups may use them.

    Magnitudes, distances and activations grow with a layer's size and scale: each is divided by its group's mean.
    The others already tell of the loss (taylor, hessian), or are meant to be compared as they are (lamp, bn-scale).
    """
    if importance not in RELATIVE:
        return dict(scores)
    return {name: values / values.mean().clamp_min(1e-30) for name, values in scores.items()}


def _channel_scores(
    graph: ChannelGraph, importance: Importance, batches: Batches | None, seed: int
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if importance not in NEEDS_IMAGES:
        return dict(_weight_scores(graph.prunable, importance, generator))
    if batches is None:
        raise RcompressError("prune", f"importance {importance} needs images", "name a dataset: --dataset")
    if importance == "activation":
        return activation_scores(graph, batches)
    if importance == "taylor":
        return taylor_scores(graph, batches)
    return hessian_scores(graph, batches, generator)


def _weight_scores(
    groups: Iterable[ChannelGroup], importance: Importance, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    rules: dict[str, Callable[[ChannelGroup], Tensor | None]] = {
        "l1": lambda group: _magnitude(group, 1),
        "l2": lambda group: _magnitude(group, 2),
        "lamp": lambda group: _magnitude(group, 2),
        "bn-scale": _batchnorm_scale,
        "fpgm": _distance_to_others,
        "random": lambda group: torch.rand(group.width, generator=generator),
    }
    for group in groups:
        scores = rules[importance](group)
        if scores is not None:
            yield group.name, scores


def _magnitude(group: ChannelGroup, power: int) -> Tensor:
    total = torch.zeros(group.width)
    for member in _learned(group.members):
        total.index_add_(0, member.roots, _weight_rows(member).abs().pow(power).sum(1))
    return total


def _batchnorm_scale(group: ChannelGroup) -> Tensor | None:
    total, count = torch.zeros(group.width), torch.zeros(group.width)
    for member in group.batch_norms:
        if member.layer.affine:  # type: ignore[union-attr]
            total.index_add_(0, member.roots, _weight_rows(member).abs().sum(1))
            count.index_add_(0, member.roots, torch.ones(len(member.roots)))
    return total / count if bool(count.all()) else None


def _distance_to_others(group: ChannelGroup) -> Tensor:
    filters = torch.cat(
        [_by_root(member, _weight_rows(member), group.width) for member in _learned(group.makers)], dim=1
    )
    products = filters.double() @ filters.double().T
    squares = products.diagonal()
    return (squares[:, None] + squares - 2 * products).clamp_min(0).sqrt().sum(1).float()


def _lamp(magnitudes: Tensor) -> Tensor:
    """Each magnitude over the sum of itself and all that rank above it."""
    values, order = magnitudes.sort(stable=True)
    from_here = values.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(values)
    scores[order] = values / from_here.clamp_min(1e-30)
    return scores


def _learned(members: Iterable[Member]) -> Iterator[Member]:
    """Layers with a weight for each channel: not free parameters, PReLU's one slope, nor what is fixed."""
    for member in members:
        weight = getattr(member.layer, "weight", None) if isinstance(member.layer, nn.Module) else None
        of_channels = any(parameter is weight for parameter in member.parameters())
        if of_channels and not isinstance(member.layer, FixedShortcut):
            yield member


def _weight_rows(member: Member) -> Tensor:
    """The weights (n, values) of each of the member's channels."""
    weight = member.layer.get_parameter("weight")  # type: ignore[union-attr]
    return member.rows(weight, weight.detach())


def _by_root(member: Member, rows: Tensor, width: int) -> Tensor:
    """``rows`` (n, values) in the order of the group's channels: (width, values per channel)."""
    return rows[member.roots.argsort(stable=True)].reshape(width, -1)
