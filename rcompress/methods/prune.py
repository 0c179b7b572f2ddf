"""Structured pruning: channels are really removed, in every layer that shares them.

The dependency graph is Torch-Pruning's (Fang et al. 2023, DepGraph, section 3); which channels go is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch_pruning as tp
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.measure.complexity import module_complexity
from rcompress.models.cifar_resnet import FixedShortcut

Importance = Literal["l1", "l2", "random"]
DEFAULT_ROUND_TO = 16  # the fastest at equal MACs: tests/benchmarks/DECISIONS.md


@dataclass(frozen=True)
class PruneOptions:
    """How much goes, and by which measure.

    Attributes:
        ratio: share of each layer's channels to remove, 0 < ratio < 1.
        importance: of a channel over all weights that vanish with it: ``l1`` or ``l2`` magnitude (Li et al. 2017),
            or ``random`` as a baseline.
        round_to: widths are kept at the nearest multiple of this (engines run odd widths slowly); 1 for none.
        seed: of ``random``.
    """

    ratio: float
    importance: Importance = "l2"
    round_to: int = DEFAULT_ROUND_TO
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise RcompressError(
                "--ratio", f"{self.ratio} is not between 0 and 1", "0.6 removes 60 % of the channels"
            )
        if self.round_to < 1 or self.importance not in get_args(Importance):
            raise RcompressError("prune", "unknown importance or rounding", "see rcompress prune -h")


@dataclass(frozen=True)
class PruneReport:
    """What was removed: widths by layer (the head left out), parameters and MACs of one image, before and after."""

    widths: dict[str, tuple[int, int]]
    parameters: tuple[int, int]
    macs: tuple[int | None, int | None]

    @property
    def channels_removed_percent(self) -> float:
        """Of all channels that could go: rounding makes it differ from the ratio asked for."""
        before, after = map(sum, zip(*self.widths.values(), strict=True))
        return float(100.0 * (1 - after / before))


def prune(module: nn.Module, input_size: tuple[int, int, int], options: PruneOptions) -> PruneReport:
    """Remove channels from ``module`` in place; layers that share channels lose the same ones.

    Args:
        module: any network from (N, C, H, W) to (N, classes); its last linear layer keeps its outputs.
        input_size: (C, H, W) of one image.

    Raises:
        RcompressError: the network cannot be traced, or nothing in it can be pruned by this ratio and rounding.
    """
    module.eval()
    _refuse_grouped(module)
    before_widths, before = _widths(module), module_complexity(module, input_size)
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    importance = _importance(options)
    graph = _dependency_graph(module, input_size)
    chosen = []  # all of it before the first cut: a score must not depend on what another group has lost
    for group in graph.get_all_groups(ignored_layers=_kept_layers(module)):
        scores = importance(group)
        kept = kept_width(len(scores), options.ratio, options.round_to)
        removed = scores.argsort(stable=True)[: len(scores) - kept].tolist()
        chosen.append((group[0].dep.layer, group[0].dep.handler, removed))
    for root, handler, removed in chosen:
        if removed:
            graph.get_pruning_group(root, handler, removed).prune()
    _freeze(module, frozen)
    kept_names = {name for name, layer in module.named_modules() if layer in _kept_layers(module)}
    after_widths = _widths(module)
    widths = {n: (width, after_widths[n]) for n, width in before_widths.items() if n not in kept_names}
    if all(old == new for old, new in widths.values()):
        raise RcompressError(
            "prune", f"no layer loses a channel at ratio {options.ratio}", "raise --ratio or lower --round-to"
        )
    after = module_complexity(module, input_size)
    return PruneReport(widths, (before.parameters, after.parameters), (before.macs, after.macs))


def kept_width(width: int, ratio: float, round_to: int) -> int:
    """Channels that stay: ``floor(width * (1 - ratio))``, at the nearest multiple of ``round_to``, at least one."""
    exact = max(1, math.floor(width * (1.0 - ratio) + 1e-9))
    rounded = max(1, math.floor(exact / round_to + 0.5)) * round_to
    return min(width, rounded)


def _importance(options: PruneOptions) -> Callable[[tp.dependency.Group], Tensor]:
    """Scores (channels,) of a group; weights that are fixed by construction have no say."""
    if options.importance == "random":
        generator = torch.Generator().manual_seed(options.seed)
        return lambda group: torch.rand(len(group[0].idxs), generator=generator)
    magnitude = tp.importance.GroupMagnitudeImportance(p=1 if options.importance == "l1" else 2)

    def learned(group: tp.dependency.Group) -> Tensor:
        own = tp.dependency.Group()
        own._DG = group._DG
        for item in group.items:
            if not isinstance(item.dep.layer, FixedShortcut):
                own.items.append(item)
        scores: Tensor = magnitude(own)
        return scores

    return learned


def _dependency_graph(module: nn.Module, input_size: tuple[int, int, int]) -> tp.DependencyGraph:
    try:
        return tp.DependencyGraph().build_dependency(module, example_inputs=torch.randn(1, *input_size))
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise RcompressError(
            "prune",
            f"this network cannot be traced ({error})",
            "make its forward a plain chain of tensor operations",
        ) from error


def _kept_layers(module: nn.Module) -> list[nn.Module]:
    """The head: its outputs are the classes."""
    linear: list[nn.Module] = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return linear[-1:]


def _refuse_grouped(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.in_channels:
            raise RcompressError(
                "prune",
                f"{name} is a grouped convolution, whose channels cannot go one by one",
                "use another network",
            )


def _widths(module: nn.Module) -> dict[str, int]:
    return dict(_layer_widths(module))


def _layer_widths(module: nn.Module) -> Iterator[tuple[str, int]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            yield name, layer.out_channels
        elif isinstance(layer, nn.Linear):
            yield name, layer.out_features


def _freeze(module: nn.Module, names: list[str]) -> None:
    """Torch-Pruning makes every parameter it cuts trainable again."""
    for name in names:
        module.get_parameter(name).requires_grad_(False)
