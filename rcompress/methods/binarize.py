"""BinaryConnect: training with weights of one bit (Courbariaux, Bengio and David 2015, algorithm 1).

Real-valued latent weights are binarized for the forward and backward pass; the gradient at the binary weights moves
the latent ones, which are then clipped to [-1, 1]. What is judged and kept are the binary weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rcompress.errors import RcompressError
from rcompress.methods.layer_weights import weighted_layers
from rcompress.training import Recipe
from rcompress.training.guidance import Constraint, ParameterGroups
from rcompress.training.recipe import default_groups

Scaling = Literal["none", "xnor"]


@dataclass(frozen=True)
class BinarizeOptions:
    """Which weights become binary, and how.

    Attributes:
        scaling: ``none``: -1 and 1; ``xnor``: times each filter's mean absolute latent weight (Rastegari et al.
            2016, section 3.1).
        stochastic: draw the signs of a training step: 1 with probability (w + 1) / 2 (section 2.3); those that are
            judged and kept are the latent weights' own.
        all_layers: the first and the last layer too.
    """

    scaling: Scaling = "none"
    stochastic: bool = False
    all_layers: bool = False

    def __post_init__(self) -> None:
        if self.scaling not in get_args(Scaling):
            raise RcompressError("--scaling", f"unknown scaling {self.scaling!r}", "use none or xnor")


def binary_layers(module: nn.Module, options: BinarizeOptions) -> list[str]:
    """Names of the layers whose weights become binary: all learned ones, without the first and the last.

    Raises:
        RcompressError: there is none.
    """
    names = [name for name, _ in weighted_layers(module)]
    chosen = names if options.all_layers else names[1:-1]
    if not chosen:
        raise RcompressError(
            "binarize", "the network has no layer between the first and the last", "--all-layers"
        )
    return chosen


class BinaryConnect(Constraint):
    """Algorithm 1 for the layers ``names``, while it is attached.

    The latent weights start as the weights of the network, each filter divided by its largest: within the range of
    clipping, and as far from a change of sign as training can reach.
    """

    def __init__(self, names: list[str], options: BinarizeOptions) -> None:
        self.names = names
        self.options = options
        self.latent: list[Tensor] = []

    def attach(self, module: nn.Module) -> None:
        """See `Constraint`."""
        for name in self.names:
            layer = module.get_submodule(name)
            _normalise(layer.weight)  # type: ignore[arg-type]
            parametrize.register_parametrization(layer, "weight", _Binary(self.options))
        self.latent = [latent for latent, _ in _latent_weights(module)]

    @torch.no_grad()
    def after_step(self, module: nn.Module) -> None:
        """Clip: beyond one, a latent weight would only take longer to come back (section 2.4)."""
        del module
        torch._foreach_clamp_min_(self.latent, -1.0)
        torch._foreach_clamp_max_(self.latent, 1.0)

    def identity(self) -> dict[str, Any]:
        """See `Constraint`."""
        return {"constraint": "binary-connect", "layers": list(self.names), **asdict(self.options)}


def parameter_groups(recipe: Recipe) -> ParameterGroups:
    """The optimizer's groups: the latent weights' rates are scaled by the inverse of Glorot's coefficient.

    Section 2.5: by the coefficient itself with Adam, by its square with SGD; they are never decayed.
    """
    power = 1 if recipe.optimizer == "adamw" else 2

    def groups(module: nn.Module) -> list[dict[str, Any]]:
        latent = list(_latent_weights(module))
        own = {id(weight) for weight, _ in latent}
        others = default_groups(recipe, module)
        for group in others:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
        scaled = [
            {"params": [weight], "weight_decay": 0.0, "lr_scale": 1.0 / coefficient**power}
            for weight, coefficient in latent
        ]
        return [*others, *scaled]

    return groups


def glorot_coefficient(weight: Tensor) -> float:
    """sqrt(1.5 / (inputs + outputs)) of a layer, receptive field included, as the authors' own program has it."""
    field = math.prod(weight.shape[2:])
    return math.sqrt(1.5 / ((weight.shape[0] + weight.shape[1]) * field))


class _Sign(torch.autograd.Function):
    """1 where ``latent >= threshold``, else -1; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, threshold: Tensor) -> Tensor:
        del ctx
        return torch.where(latent >= threshold, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradients[0], None


class _Binary(nn.Module):
    """Binary weights from latent ones."""

    def __init__(self, options: BinarizeOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, latent: Tensor) -> Tensor:
        """-1 and 1, or with ``xnor`` plus and minus each filter's scale; of ``latent``'s shape."""
        if self.options.stochastic and self.training:
            threshold = torch.empty_like(latent).uniform_(-1.0, 1.0)
        else:
            threshold = latent.new_zeros(())
        signs: Tensor = _Sign.apply(latent, threshold)
        if self.options.scaling == "none":
            return signs
        scale = latent.abs().flatten(1).mean(1)
        return signs * scale.view(-1, *[1] * (latent.dim() - 1))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The latent weights at the start."""
        return weight


@torch.no_grad()
def _normalise(weight: Tensor) -> None:
    largest = weight.abs().flatten(1).amax(1).clamp(min=1e-12)
    weight.div_(largest.view(-1, *[1] * (weight.dim() - 1)))


def _latent_weights(module: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """(latent weight, Glorot's coefficient) of every binarized layer."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            latent: Tensor = layer.get_parameter("parametrizations.weight.original")
            yield latent, glorot_coefficient(latent)
