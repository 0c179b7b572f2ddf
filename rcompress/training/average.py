"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """``average <- lerp(average, weights, 1 - decay)`` per step, short-sighted at first to forget the start.

    Floating point buffers (BatchNorm's statistics) are averaged alike, integers copied. The step count is a plain
    number, so that a GPU never waits for it.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay
        self.steps = 0
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the present weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (10.0 + self.steps))
        torch._foreach_lerp_(
            [mean for mean, _ in self._floats], [now for _, now in self._floats], 1.0 - decay
        )
        for mean, now in self._others:
            mean.copy_(now)

    def state_dict(self) -> dict[str, Any]:
        """Weights and step count."""
        return {"module": self.module.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.module.load_state_dict(state["module"])
        self.steps = int(state["steps"])


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in itertools.chain(module.parameters(), module.buffers())]
