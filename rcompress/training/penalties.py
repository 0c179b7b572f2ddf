"""Sparsity-inducing training: penalties that push whole channels towards zero before they are removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rcompress.errors import RcompressError
from rcompress.training.guidance import Constraint

STRENGTH = 1e-4
CEILING = 1.0

GROWTH_SHARE = 2 / 3
"""Of the epochs, over which a growing penalty rises; it then stands at its ceiling."""


class GroupLasso(Constraint):
    """Adds ``strength`` times the L2 norms of all filters and of all input channels of the convolutions.

    Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks, equation 3, with both coefficients equal.

    Raises:
        RcompressError: the network has no convolution.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def attach(self, module: nn.Module) -> None:
        self._weights = _convolution_weights(module)
        if not self._weights:
            raise RcompressError(
                "--sparsity-penalty group-lasso", "this network has no convolution", "use growing"
            )

    def penalty(self, module: nn.Module) -> Tensor:
        del module
        norms = [_group_norms(weight, dim).sum() for weight in self._weights for dim in (0, 1)]
        return self.strength * torch.stack(norms).sum()

    def identity(self) -> dict[str, Any]:
        return {"constraint": "group-lasso", "strength": self.strength}


class BatchNormScale(Constraint):
    """Adds ``strength`` times the L1 norm of all BatchNorm scales (Liu et al. 2017, network slimming, equation 1).

    Raises:
        RcompressError: the network has no BatchNorm with scales.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def attach(self, module: nn.Module) -> None:
        self._scales: list[Tensor] = [
            part.weight
            for part in module.modules()
            if isinstance(part, _BatchNorm) and isinstance(part.weight, nn.Parameter)
        ]
        if not self._scales:
            raise RcompressError(
                "--sparsity-penalty bn-scale", "this network has no BatchNorm", "use group-lasso or growing"
            )

    def penalty(self, module: nn.Module) -> Tensor:
        del module
        return self.strength * torch.cat(self._scales).abs().sum()

    def identity(self) -> dict[str, Any]:
        return {"constraint": "bn-scale", "strength": self.strength}


class GrowingPenalty(Constraint):
    """An L2 penalty on the channels that are to go, which grows until they are all but gone; the rest is left free.

    GReg-1 of Wang et al. 2021, Neural Pruning via Growing Regularization, section 3.2. It rises linearly over
    `GROWTH_SHARE` of the epochs; only the last epoch's network can be kept, since earlier ones still need what is to
    go.

    Args:
        doomed: by parameter name, bool (channels,) over its first axis: what is to be removed.
        ceiling: of the penalty's factor; with factor f the gradient of such a weight w gains f * w.
        epochs: of the whole run.
    """

    def __init__(self, doomed: Mapping[str, Tensor], ceiling: float, epochs: int) -> None:
        self.doomed = dict(doomed)
        self.ceiling = ceiling
        self.epochs = epochs
        self.factor, self._epoch = 0.0, 0

    def attach(self, module: nn.Module) -> None:
        self._held = [
            (module.get_parameter(name), mask.to(module.get_parameter(name).device))
            for name, mask in self.doomed.items()
        ]

    def before_step(self, module: nn.Module, epochs_done: float) -> None:
        del module
        self._epoch = int(epochs_done) + 1
        self.factor = self.ceiling * min(1.0, epochs_done / (GROWTH_SHARE * self.epochs))

    def penalty(self, module: nn.Module) -> Tensor:
        del module
        squares = [weight[mask].pow(2).sum() for weight, mask in self._held]
        return 0.5 * self.factor * torch.stack(squares).sum()

    def admits(self) -> bool:
        return self._epoch == self.epochs

    def identity(self) -> dict[str, Any]:
        doomed = {name: int(mask.sum()) for name, mask in self.doomed.items()}
        return {"constraint": "growing", "ceiling": self.ceiling, "epochs": self.epochs, "doomed": doomed}


def _convolution_weights(module: nn.Module) -> list[Tensor]:
    return [
        part.weight for part in module.modules() if isinstance(part, nn.Conv2d) and part.weight.requires_grad
    ]


def _group_norms(weight: Tensor, dim: int) -> Tensor:
    """L2 norms of the slices along ``dim``; the small number keeps the gradient finite at exact zeros."""
    others = [axis for axis in range(weight.dim()) if axis != dim]
    return weight.pow(2).sum(others).add(1e-12).sqrt()
