"""AdaRound: learning for each weight whether to round it up or down (Nagel et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rcompress.methods.layer_rows import Rows, outputs_of

ZETA, GAMMA = 1.1, -0.1  # the sigmoid is stretched to this range, so that it can reach 0 and 1 (equation 23)
BETA_START, BETA_END = 20.0, 2.0
WARM_UP = 0.2  # share of the steps without the regularizer
REGULARIZER = 0.01
LEARNING_RATE = 0.02
BATCH = 1024  # rows, not images: a row is one position of one image


@dataclass(frozen=True)
class Rounding:
    """A layer to be rounded.

    Attributes:
        weights: float32 (groups, outputs of a group, inputs of a group), before rounding.
        scale: float32, broadcasting over ``weights``.
        levels: integers run from ``-levels`` to ``levels``.
        bias: float32 (outputs,), or None.
        rectified: whether a ReLU follows: then what it cuts off need not be kept.
    """

    weights: Tensor
    scale: Tensor
    levels: int
    bias: Tensor | None
    rectified: bool


def rounded(layer: Rounding, rows: Rows, iterations: int, generator: torch.Generator) -> Tensor:
    """Integers, float32 of the weights' shape, that keep the layer's outputs best (section 3, equation 21).

    Minimises ``mean |f(W x) - f(W~ x^)|^2 + 0.01 sum(1 - |2 h - 1|^beta)``, beta falling from 20 to 2, where ``x^``
    are the inputs as the quantized layers before give them, f is the ReLU, if any, and h, in 0..1, is what is added
    to the rounded-down weights.

    Args:
        layer: what to round.
        rows: quantized inputs, and the float network's outputs before the ReLU.
        iterations: steps of Adam, each on `BATCH` rows.
        generator: of the batches, on the CPU.
    """
    lower = torch.floor(layer.weights / layer.scale)
    rest = layer.weights / layer.scale - lower
    choice = -torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1)  # the h that this gives is the rest itself
    choice.requires_grad_(True)
    optimizer = torch.optim.Adam([choice], lr=LEARNING_RATE)
    for step in range(iterations):
        picked = torch.randint(len(rows.inputs), (BATCH,), generator=generator).to(rows.inputs.device)
        share = soft_choice(choice)
        weights = layer.scale * torch.clamp(lower + share, -layer.levels, layer.levels)
        found = outputs_of(rows.inputs[picked], weights)
        loss = _squared_error(layer, found, rows.targets[picked])
        loss = loss + REGULARIZER * _undecided(share, step / iterations)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    decided = (soft_choice(choice.detach()) >= 0.5).float()
    return torch.clamp(lower + decided, -layer.levels, layer.levels)


def _squared_error(layer: Rounding, found: Tensor, targets: Tensor) -> Tensor:
    found = found if layer.bias is None else found + layer.bias
    if layer.rectified:
        found, targets = found.relu(), targets.relu()
    return (found - targets).square().sum(1).mean()


def soft_choice(choice: Tensor) -> Tensor:
    """The rectified sigmoid h (equation 23): 0 rounds down, 1 up."""
    return torch.clamp(torch.sigmoid(choice) * (ZETA - GAMMA) + GAMMA, 0, 1)


def _undecided(share: Tensor, progress: float) -> Tensor | float:
    """The regularizer (equation 24): what is neither 0 nor 1, ever more strictly."""
    if progress < WARM_UP:
        return 0.0
    done = (progress - WARM_UP) / (1 - WARM_UP)
    beta = BETA_END + 0.5 * (BETA_START - BETA_END) * (1 + math.cos(math.pi * done))
    return (1 - (2 * share - 1).abs().pow(beta)).sum()
