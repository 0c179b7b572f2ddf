"""The layers whose weights a method replaces, and their way back to plain parameters."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrize


def weighted_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and linear layers whose weights are learned, by name."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.requires_grad:
            yield name, layer


def plain(module: nn.Module) -> nn.Module:
    """``module`` with its parametrized weights as plain parameters of the values that they have, in place."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module
