"""Low-rank factorization: a layer becomes a product of cheaper ones, where that is cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.errors import RcompressError
from rcompress.measure.complexity import Complexity, module_complexity
from rcompress.methods.layer_weights import weighted_layers
from rcompress.methods.low_rank import (
    Ranks,
    factor_weights,
    matrices_of,
    multiplications,
    product,
    singular_values,
)
from rcompress.methods.rank import energy_rank, evbmf_rank
from rcompress.models.factorized import Scheme, factorized_transform, factors, replace_layer
from rcompress.progress import SILENT, Progress, tracked

DEFAULT_ROUND_TO = 8  # tests/benchmarks/DECISIONS.md
ConvolutionScheme = Literal["auto", "spatial", "channel", "tucker"]


@dataclass(frozen=True)
class FactorizeOptions:
    """How convolutions are split, and the rank of each layer: exactly one of rank, energy, ratio and evbmf.

    Attributes:
        scheme: of convolutions wider than 1 x 1; narrower ones are split by channels. ``auto`` is for each layer
            ``spatial`` or ``channel``: with ratio the one whose product is nearer to the layer's weights, else the
            one that takes fewer MACs.
        rank: the same everywhere.
        energy: share of the squared singular values that stays.
        ratio: share of each layer's MACs to remove.
        evbmf: what stands out of the noise (Nakajima et al. 2013).
        ignore: layers, or parts of the network that hold layers, to leave alone.
        round_to: ranks are multiples of this, as engines compute whole blocks of channels: the nearest to what ratio
            finds, the next above what energy or evbmf find; a rank below the first multiple stays.
    """

    scheme: ConvolutionScheme = "auto"
    rank: int | None = None
    energy: float | None = None
    ratio: float | None = None
    evbmf: bool = False
    ignore: tuple[str, ...] = ()
    round_to: int = DEFAULT_ROUND_TO

    def __post_init__(self) -> None:
        if self.scheme not in get_args(ConvolutionScheme):
            schemes = ", ".join(get_args(ConvolutionScheme))
            raise RcompressError("--scheme", f"unknown scheme {self.scheme!r}", f"use one of {schemes}")
        given = [self.rank is not None, self.energy is not None, self.ratio is not None, self.evbmf]
        if sum(given) != 1:
            raise RcompressError(
                "factorize", "needs one way to choose ranks", "give --rank, --energy, --ratio or --evbmf"
            )
        for name, number in (("--rank", self.rank), ("--round-to", self.round_to)):
            if number is not None and number < 1:
                raise RcompressError(name, f"{number} is below 1", "give a whole number of 1 or more")
        for name, share in (("--energy", self.energy), ("--ratio", self.ratio)):
            if share is not None and not 0 < share < 1:
                raise RcompressError(name, f"{share} is not between 0 and 1", "0.5 is half")


@dataclass(frozen=True)
class FactorizedLayer:
    """One layer.

    Attributes:
        ranks: of its factors; those that were considered, where ``reason`` says why it was left alone; or none.
        full: the ranks at which nothing would be lost.
        macs: for one image, before and after.
        relative_error: norm of the weights' change over their norm.
    """

    name: str
    scheme: Scheme
    macs: tuple[int, int]
    ranks: Ranks = ()
    full: Ranks = ()
    relative_error: float = 0.0
    reason: str | None = None


@dataclass(frozen=True)
class FactorizeReport:
    """Every layer, and the network's parameters and MACs of one image before and after."""

    layers: tuple[FactorizedLayer, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]

    @property
    def share_of_split_layers(self) -> float:
        """What is left of the MACs of those layers that were replaced."""
        before, after = (sum(row.macs[i] for row in self.layers if row.reason is None) for i in (0, 1))
        return after / before

    def described(self, spec: ModelSpec) -> ModelSpec:
        """``spec`` with the transform by which the network is rebuilt."""
        schemes = {row.name: row.scheme for row in self.layers if row.reason is None}
        return replace(spec, transforms=(*spec.transforms, factorized_transform(schemes)))


def factorize(
    module: nn.Module,
    input_size: tuple[int, int, int],
    options: FactorizeOptions,
    progress: Progress = SILENT,
) -> FactorizeReport:
    """Replace layers of ``module`` by factors, in place, wherever that saves MACs.

    Args:
        module: any network; its own code must call the layers, not read their weights.
        input_size: (C, H, W) of an image.
        options: see there.

    Raises:
        RcompressError: no layer would become cheaper, or a layer to ignore is not there.
    """
    _require_parts(module, options.ignore)
    before, layers = module_complexity(module, input_size), dict(weighted_layers(module))
    costs = _costs(before)
    rows = [
        _factorized(module, name, layer, costs.get(name), options)
        for name, layer in tracked(layers.items(), len(layers), "factorizing", progress)
    ]
    if all(row.reason for row in rows):
        raise RcompressError(
            "factorize", "no layer would become cheaper", "lower --rank or --energy, or raise --ratio"
        )
    after = _complexity(module, input_size)
    rows = [_measured(row, _costs(after)) for row in rows]
    return FactorizeReport(
        tuple(rows), (before.parameters, after.parameters), (before.macs or 0, after.macs or 0)
    )


def _require_parts(module: nn.Module, names: Sequence[str]) -> None:
    known = {name for name, _ in module.named_modules() if name}
    for name in names:
        if name not in known:
            raise RcompressError("--ignore", f"the network has no layer {name!r}", "see rcompress inspect")


def _costs(complexity: Complexity) -> dict[str, int]:
    return {layer.name: layer.macs for layer in complexity.layers if layer.macs is not None}


def _complexity(module: nn.Module, input_size: tuple[int, int, int]) -> Complexity:
    try:
        return module_complexity(module, input_size)
    except AttributeError as error:
        raise RcompressError(
            "factorize",
            f"the network's code reads a layer that was replaced ({error})",
            "--ignore that layer",
        ) from None


def _measured(row: FactorizedLayer, costs: dict[str, int]) -> FactorizedLayer:
    """``row`` with the MACs of its factors as they were counted."""
    if row.reason is not None:
        return row
    after = sum(cost for name, cost in costs.items() if name.startswith(f"{row.name}."))
    return replace(row, macs=(row.macs[0], after))


def _factorized(
    module: nn.Module, name: str, layer: nn.Module, macs: int | None, options: FactorizeOptions
) -> FactorizedLayer:
    schemes = _schemes(layer, options.scheme)
    row = FactorizedLayer(name, schemes[0], (macs or 0, macs or 0))
    reason = _unfit(name, layer, macs, options.ignore)
    if reason is not None:
        return replace(row, reason=reason)
    best = min((_split(layer, scheme, options) for scheme in schemes), key=partial(_worth, options))
    row = replace(row, scheme=best.scheme, ranks=best.ranks, full=best.full)
    if best.share >= 1:
        return replace(row, reason=f"at rank {shown(best.ranks)} it would take {best.share:.0%} of its MACs")
    replace_layer(module, name, _filled(layer, best.scheme, best.ranks, best.parts))
    return replace(row, relative_error=best.error)


@dataclass(frozen=True)
class _Split:
    """What one scheme makes of a layer's weights, at ``share`` of its MACs; the factors once they are asked for."""

    weight: Tensor
    scheme: Scheme
    ranks: Ranks
    full: Ranks
    share: float

    @cached_property
    def parts(self) -> list[Tensor]:
        return factor_weights(self.weight, self.scheme, self.ranks)

    @cached_property
    def error(self) -> float:
        """Norm of the weights' change over their norm."""
        return float((product(self.parts, self.scheme) - self.weight).norm() / self.weight.norm())


def _split(layer: nn.Module, scheme: Scheme, options: FactorizeOptions) -> _Split:
    weight = _weight(layer).detach().double().cpu()
    matrices = matrices_of(weight, scheme)
    ranks = _ranks(layer, scheme, matrices, options)
    share = multiplications(layer, scheme, ranks) / weight.numel()
    return _Split(weight, scheme, ranks, _full(matrices), share)


def _worth(options: FactorizeOptions, split: _Split) -> tuple[bool, float]:
    """Less is better: a split that costs more than its layer is worth nothing."""
    if split.share >= 1:
        return True, split.share
    return False, split.share if options.ratio is None else split.error


def _unfit(name: str, layer: nn.Module, macs: int | None, ignore: Sequence[str]) -> str | None:
    """Why a layer cannot be replaced, if so."""
    if any(f"{name}.".startswith(f"{part}.") for part in ignore):
        return "is to be left alone (--ignore)"
    if type(layer) not in (nn.Conv2d, nn.Linear):
        return f"is a {type(layer).__name__}"
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "is a grouped convolution"
    if not macs:
        return "is not called for an image: other code may read its weights"
    return None if torch.any(_weight(layer) != 0) else "is zero"


def _filled(layer: nn.Module, scheme: Scheme, ranks: Ranks, parts: Sequence[Tensor]) -> nn.Sequential:
    """The factors of ``layer`` with their weights and its bias, where and as it is."""
    made = factors(layer, scheme, ranks).to(_weight(layer).device, _weight(layer).dtype)
    with torch.no_grad():
        for factor, part in zip(made, parts, strict=True):
            _weight(factor).copy_(part)
        if layer.bias is not None:
            made[-1].get_parameter("bias").copy_(layer.get_parameter("bias"))
    return made.train(layer.training)


def _schemes(layer: nn.Module, wanted: ConvolutionScheme) -> tuple[Scheme, ...]:
    """Those to choose from."""
    if isinstance(layer, nn.Linear):
        return ("linear",)
    height, width = _weight(layer).shape[2:]
    if height * width == 1 or (wanted in ("auto", "spatial") and min(height, width) == 1):
        return ("channel",)
    return ("spatial", "channel") if wanted == "auto" else (wanted,)


def _weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight")


def _full(matrices: Sequence[Tensor]) -> Ranks:
    return tuple(min(matrix.shape) for matrix in matrices)


def _ranks(layer: nn.Module, scheme: Scheme, matrices: Sequence[Tensor], options: FactorizeOptions) -> Ranks:
    full = _full(matrices)
    if options.rank is not None:
        return tuple(min(options.rank, most) for most in full)
    if options.ratio is not None:
        found = _affordable(layer, scheme, full, (1 - options.ratio) * _weight(layer).numel())
    else:
        found = tuple(_standing_out(matrix, options.energy) for matrix in matrices)
    above = options.round_to // 2 if options.ratio is not None else options.round_to - 1
    return tuple(
        rank if rank < options.round_to else min((rank + above) // options.round_to * options.round_to, most)
        for rank, most in zip(found, full, strict=True)
    )


def _standing_out(matrix: Tensor, energy: float | None) -> int:
    """The rank that holds a share of the energy, or that stands out of the noise."""
    singular = np.asarray(singular_values(matrix))
    if energy is not None:
        return energy_rank(singular, energy)
    return evbmf_rank(singular, (matrix.shape[0], matrix.shape[1]))


def _affordable(layer: nn.Module, scheme: Scheme, full: Ranks, budget: float) -> Ranks:
    """The highest ranks, all the same share of the full ones, whose cost is within ``budget``; at least one."""
    steps = max(full)
    ranks = [tuple(max(1, most * step // steps) for most in full) for step in range(1, steps + 1)]
    fitting = [choice for choice in ranks if multiplications(layer, scheme, choice) <= budget]
    return fitting[-1] if fitting else ranks[0]


def shown(ranks: Ranks) -> str:
    """``16``, or ``16 x 24``."""
    return " x ".join(map(str, ranks))
