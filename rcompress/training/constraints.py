"""Sparsity held during a run: masks that stay, and masks that grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rcompress.training.guidance import Constraint

Masks = Mapping[str, Tensor]
"""By parameter name: bool, of the parameter's shape, False where a weight is exactly zero and stays so."""

ChooseMasks = Callable[[nn.Module, float], Masks]
"""(network, share of its weights to be zero) -> masks."""

RAMP_SHARE = 0.6
"""Of the epochs, over which sparsity grows; the rest recovers at the final sparsity."""

RAMP_UPDATES = 40
"""How often the masks grow over the ramp."""


@torch.no_grad()
def apply_masks(module: nn.Module, masks: Masks) -> None:
    """Set every weight that ``masks`` excludes to exactly zero, in place."""
    for name, mask in masks.items():
        parameter = module.get_parameter(name)
        parameter.masked_fill_(~mask.to(parameter.device), 0.0)


def cubic_sparsity(final: float, done: float) -> float:
    """The share of zeros at ``done`` (0..1) of the ramp: fast at first (Zhu and Gupta 2017, equation 1, s_i = 0)."""
    return final * (1.0 - (1.0 - min(max(done, 0.0), 1.0)) ** 3)


class HoldMasks(Constraint):
    """Weights outside the masks are zero after every step, whatever momentum and weight decay do."""

    def __init__(self, masks: Masks) -> None:
        self.masks = dict(masks)

    def attach(self, module: nn.Module) -> None:
        device = next(module.parameters()).device
        self.masks = {name: mask.to(device) for name, mask in self.masks.items()}
        self.project(module)

    def after_step(self, module: nn.Module) -> None:
        self.project(module)

    def project(self, module: nn.Module) -> None:
        apply_masks(module, self.masks)

    def identity(self) -> dict[str, Any]:
        zeros = {name: int(mask.numel() - mask.sum()) for name, mask in self.masks.items()}
        return {"constraint": "hold-masks", "zeros": zeros}


class GrowMasks(Constraint):
    """Magnitude pruning while training: sparsity rises along `cubic_sparsity`; what is zero once stays zero.

    Args:
        choose: masks of the present weights for a sparsity; zeros must be the first to be chosen.
        final: sparsity at the end of the ramp.
        epochs: of the whole run; the ramp takes `RAMP_SHARE` of them.
    """

    def __init__(self, choose: ChooseMasks, final: float, epochs: int) -> None:
        self.choose = choose
        self.final = final
        self.ramp_epochs = RAMP_SHARE * epochs
        self.masks: dict[str, Tensor] = {}
        self.updates = 0

    def before_step(self, module: nn.Module, epochs_done: float) -> None:
        due = min(int(epochs_done / self.ramp_epochs * RAMP_UPDATES), RAMP_UPDATES)
        if due > self.updates:
            self.updates = due
            self.masks = dict(self.choose(module, cubic_sparsity(self.final, due / RAMP_UPDATES)))
            self.project(module)

    def after_step(self, module: nn.Module) -> None:
        self.project(module)

    def project(self, module: nn.Module) -> None:
        apply_masks(module, self.masks)

    def admits(self) -> bool:
        return self.updates == RAMP_UPDATES

    def identity(self) -> dict[str, Any]:
        return {"constraint": "grow-masks", "final": self.final, "ramp_epochs": self.ramp_epochs}

    def state(self) -> dict[str, Any]:
        return {"masks": self.masks, "updates": self.updates}

    def restore(self, state: dict[str, Any]) -> None:
        self.masks, self.updates = dict(state["masks"]), int(state["updates"])
