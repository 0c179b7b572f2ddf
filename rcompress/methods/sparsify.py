"""Zeros in place: single weights, N of M input channels, or whole filters; shapes stay as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.models.cifar_resnet import FixedShortcut
from rcompress.training.constraints import Masks, apply_masks

Scope = Literal["global", "layer"]
Layer = nn.Conv2d | nn.Linear
Layers = Mapping[str, Layer]
"""By module name, in the network's order."""


@dataclass(frozen=True)
class Choice:
    """Masks by module name, bool of the weight's shape, False for zero; and why other layers stay dense."""

    masks: dict[str, Tensor]
    dense: dict[str, str] = field(default_factory=dict)


class Pattern(Protocol):
    """Which weights go."""

    name: ClassVar[str]

    def choose(self, layers: Layers, head: str | None) -> Choice:
        """Masks for the present weights of ``layers``; ``head`` is the one whose outputs are the classes."""
        ...


@dataclass(frozen=True)
class Unstructured:
    """The weights of least magnitude, of each layer or of all together (Han et al. 2015, section 3).

    Attributes:
        sparsity: share of the weights that become zero, 0 < sparsity < 1.
        scope: ``global`` ranks the weights of all layers in one list, ``layer`` takes the same share of each.
    """

    name: ClassVar[str] = "unstructured"
    sparsity: float
    scope: Scope = "global"

    def __post_init__(self) -> None:
        _require_share("--sparsity", self.sparsity)

    def choose(self, layers: Layers, head: str | None) -> Choice:
        """See `Pattern`."""
        del head
        weights = {name: layer.weight.detach().abs() for name, layer in layers.items()}
        if self.scope == "layer":
            return Choice({name: _largest(weight, self.sparsity) for name, weight in weights.items()})
        kept = _largest(torch.cat([weight.flatten() for weight in weights.values()]), self.sparsity)
        parts = torch.split(kept, [weight.numel() for weight in weights.values()])
        return Choice({name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)})


@dataclass(frozen=True)
class BlockSparse:
    """At most ``kept`` non-zeros among every ``block`` consecutive input channels (Mishra et al. 2021, section 3).

    The blocks lie along dimension 1 of the weight: for a convolution (out, in, height, width) at every (out, height,
    width), which is how TensorRT's and cuSPARSELt's sparse tensor cores want 2:4. The largest magnitudes stay. Layers
    whose input channels per group are no multiple of ``block`` stay dense.
    """

    name: ClassVar[str] = "n:m"
    kept: int = 2
    block: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.block:
            raise RcompressError(
                "--nm", f"{self.kept}:{self.block} keeps nothing or everything", "2:4 is usual"
            )

    def choose(self, layers: Layers, head: str | None) -> Choice:
        """See `Pattern`."""
        del head
        channels = {name: layer.weight.shape[1] for name, layer in layers.items()}
        dense = {
            name: f"its {count} input channels are no multiple of {self.block}"
            for name, count in channels.items()
            if count % self.block
        }
        return Choice(
            {name: self._mask(layer.weight) for name, layer in layers.items() if name not in dense}, dense
        )

    def _mask(self, weight: Tensor) -> Tensor:
        last = weight.detach().abs().movedim(1, -1)
        blocks = last.reshape(*last.shape[:-1], -1, self.block)
        kept = torch.zeros_like(blocks, dtype=torch.bool)
        kept.scatter_(-1, blocks.topk(self.kept, dim=-1).indices, True)
        return kept.flatten(-2).movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class Filters:
    """Whole filters of least L2 norm, as ``torch.nn.utils.prune.ln_structured(n=2, dim=0)`` masks them.

    At least one filter of a layer stays.

    Attributes:
        share: of each layer's filters, 0 < share < 1, rounded to a number of filters.
        linear: outputs of linear layers too, but not the head's.
        head: the classes' outputs too: the network can no longer predict those.
    """

    name: ClassVar[str] = "filters"
    share: float
    linear: bool = False
    head: bool = False

    def __post_init__(self) -> None:
        _require_share("--filters", self.share)

    def choose(self, layers: Layers, head: str | None) -> Choice:
        """See `Pattern`."""
        chosen = {
            name: layer
            for name, layer in layers.items()
            if (self.head if name == head else self.linear or isinstance(layer, nn.Conv2d))
        }
        return Choice({name: self._mask(layer.weight) for name, layer in chosen.items()})

    def _mask(self, weight: Tensor) -> Tensor:
        norms = weight.detach().flatten(1).norm(dim=1)
        removed = min(round(self.share * len(norms)), len(norms) - 1)
        kept = _without_least(norms, removed)
        return kept.view(-1, *(1,) * (weight.dim() - 1)).expand_as(weight).contiguous()


@dataclass(frozen=True)
class LayerSparsity:
    """One layer's weight after sparsification; ``reason``: why it was left dense, None where it was not."""

    name: str
    weights: int
    nonzero: int
    filters: int
    zero_filters: int
    reason: str | None = None

    @property
    def sparsity_percent(self) -> float:
        """Share of the weights that is exactly zero."""
        return 100.0 * (1 - self.nonzero / self.weights)


def choose_masks(
    module: nn.Module, pattern: Pattern, ignore: Sequence[str] = ()
) -> tuple[Masks, dict[str, str]]:
    """Masks by parameter name, and by layer why others are left alone; nothing is changed.

    Args:
        module: any network; its convolutions and linear layers are looked at, but for shortcuts that are fixed.
        pattern: which weights go.
        ignore: layers, or parts of the network that hold layers, to be left dense.

    Raises:
        RcompressError: ``ignore`` names no part of the network, or there is no layer to sparsify.
    """
    layers = sparsifiable(module)
    left = dict.fromkeys(_within(module, layers, ignore), "it is to be left alone (--ignore)")
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    head = next(reversed(linear or list(layers)), None)
    chosen = pattern.choose({name: layer for name, layer in layers.items() if name not in left}, head)
    if not chosen.masks:
        raise RcompressError("sparsify", "no layer of this network can take the pattern", "try another")
    return {f"{name}.weight": mask for name, mask in chosen.masks.items()}, {**left, **chosen.dense}


def sparsify(module: nn.Module, pattern: Pattern, ignore: Sequence[str] = ()) -> tuple[Masks, dict[str, str]]:
    """Set the weights that ``pattern`` chooses to exactly zero, in place; returns what `choose_masks` does."""
    masks, dense = choose_masks(module, pattern, ignore)
    apply_masks(module, masks)
    return masks, dense


def sparsifiable(module: nn.Module) -> dict[str, Layer]:
    """The convolutions and linear layers by name, in the network's order, without those fixed by construction."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, Layer) and not isinstance(layer, FixedShortcut)
    }


def sparsity_table(module: nn.Module, dense: Mapping[str, str] = {}) -> list[LayerSparsity]:
    """Every layer's zeros as they are; ``dense`` says why some were left alone."""
    rows = []
    for name, layer in sparsifiable(module).items():
        weight = layer.weight.detach()
        dead = int((weight.flatten(1).count_nonzero(dim=1) == 0).sum())
        counts = (weight.numel(), int(weight.count_nonzero()), len(weight), dead)
        rows.append(LayerSparsity(name, *counts, dense.get(name)))
    return rows


def _largest(magnitudes: Tensor, sparsity: float) -> Tensor:
    """True for all but the ``sparsity`` smallest share."""
    flat = magnitudes.flatten()
    return _without_least(flat, math.floor(sparsity * len(flat) + 0.5)).view_as(magnitudes)


def _without_least(scores: Tensor, count: int) -> Tensor:
    """bool (n,): False for exactly the ``count`` smallest of ``scores`` (n,)."""
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept[scores.topk(count, largest=False).indices] = False
    return kept


def _within(module: nn.Module, layers: Layers, parts: Sequence[str]) -> list[str]:
    known = {name for name, _ in module.named_modules()}
    for part in parts:
        if part not in known:
            raise RcompressError("--ignore", f"the network has no layer {part!r}", "see rcompress inspect")
    return [name for name in layers if any(f"{name}.".startswith(f"{part}.") for part in parts)]


def _require_share(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise RcompressError(option, f"{value} is not between 0 and 1", "0.5 sets half to zero")
