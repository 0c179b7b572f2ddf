"""How scales move while a quantized graph is trained: learned, or following the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rcompress.engines.fake_quantize import along
from rcompress.engines.torch_graph import TorchGraph
from rcompress.methods.qat_graph import Quantizer, TrainableGraph, parameter
from rcompress.methods.qdq import BIAS_LIMIT
from rcompress.training.guidance import Constraint

LEAST_SHARE = 1 / 64  # of its first value: a scale that falls so far has diverged, and must not reach zero


class LearnedScales(Constraint):
    """Learned step size quantization (Esser et al. 2020), starting from calibrated scales.

    A scale's gradient is multiplied by ``1 / sqrt(N * Q)`` (section 2.2), N the values of one image, or of one
    channel's weights, that share it and Q the largest integer, so that relative to their sizes weights and scales
    move alike. Scales stay positive, and large enough for the biases to fit the INT32 that runtimes make of them.
    """

    def __init__(self, trainable: TrainableGraph) -> None:
        self._trainable = trainable
        self._factors: dict[str, float] = {}
        self._floors: dict[str, Tensor] = {}

    def attach(self, module: nn.Module) -> None:
        sizes = _sizes(module, self._trainable.input_shape)
        for quantizer in self._trainable.quantizers:
            scale = parameter(module, quantizer.scale)
            if scale.requires_grad:
                shared = _values_per_scale(quantizer, module, sizes)
                self._factors[quantizer.scale] = 1.0 / math.sqrt(shared * quantizer.highest)
                self._floors[quantizer.scale] = LEAST_SHARE * scale.detach()

    def after_backward(self, module: nn.Module) -> None:
        for name, factor in self._factors.items():
            gradient = parameter(module, name).grad
            if gradient is not None:
                gradient.mul_(factor)

    def after_step(self, module: nn.Module) -> None:
        self.project(module)

    @torch.no_grad()
    def project(self, module: nn.Module) -> None:
        for name, floor in self._floors.items():
            scale = parameter(module, name)
            torch.maximum(scale, floor, out=scale)
        make_room_for_biases(self._trainable, module)

    def identity(self) -> dict[str, Any]:
        return {"scales": "lsq"}


class ObservedScales(Constraint):
    """Weights' scales follow their largest magnitudes at the calibrated ratio; activations' stay as calibrated."""

    def __init__(self, trainable: TrainableGraph) -> None:
        self._weights = [quantizer for quantizer in trainable.quantizers if quantizer.is_weight]
        self._trainable = trainable
        self._owners: dict[str, Tensor] = {}
        self._ratios: dict[str, Tensor] = {}

    def attach(self, module: nn.Module) -> None:
        for quantizer in self._trainable.quantizers:
            parameter(module, quantizer.scale).requires_grad_(False)
        for quantizer in self._weights:
            scale = parameter(module, quantizer.scale)
            self._owners[quantizer.scale] = _owners(quantizer, module)
            largest = self._largest(quantizer, module)
            self._ratios[quantizer.scale] = torch.where(largest > 0, scale / largest, 1.0)

    def after_step(self, module: nn.Module) -> None:
        self.project(module)

    @torch.no_grad()
    def project(self, module: nn.Module) -> None:
        for quantizer in self._weights:
            scale, largest = parameter(module, quantizer.scale), self._largest(quantizer, module)
            torch.where(largest > 0, self._ratios[quantizer.scale] * largest, scale, out=scale)
        make_room_for_biases(self._trainable, module)

    def identity(self) -> dict[str, Any]:
        return {"scales": "observed"}

    def _largest(self, quantizer: Quantizer, module: nn.Module) -> Tensor:
        """The largest magnitude among the weights of each scale, in the scale's shape."""
        magnitudes = parameter(module, quantizer.values).detach().abs().flatten()
        scale = parameter(module, quantizer.scale).detach()
        largest = torch.zeros(scale.numel(), device=scale.device)
        largest.scatter_reduce_(0, self._owners[quantizer.scale], magnitudes, "amax")
        return largest.reshape(scale.shape)


def make_room_for_biases(trainable: TrainableGraph, module: nn.Module) -> None:
    """Raise weight scales under which a bias would not fit an INT32 in steps of (activation x weight scale)."""
    for layer in trainable.layers:
        scale = parameter(module, layer.weight_scale).data
        floor = parameter(module, layer.bias).data.abs() / (
            parameter(module, layer.activation_scale).data * BIAS_LIMIT
        )
        torch.maximum(scale, floor if scale.dim() else floor.amax(), out=scale)


def _owners(quantizer: Quantizer, module: nn.Module) -> Tensor:
    """int64, for each weight in its order the position of its scale."""
    weight, scale = parameter(module, quantizer.values), parameter(module, quantizer.scale)
    positions = torch.arange(scale.numel(), device=scale.device).reshape(scale.shape)
    return along(quantizer.attributes, positions, weight).expand(weight.shape).flatten()


def _values_per_scale(quantizer: Quantizer, module: nn.Module, sizes: dict[str, int]) -> float:
    if not quantizer.is_weight:
        return sizes[quantizer.values]
    return parameter(module, quantizer.values).numel() / parameter(module, quantizer.scale).numel()


@torch.no_grad()
def _sizes(module: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """The number of values of every activation of one image."""
    assert isinstance(module, TorchGraph)
    sizes: dict[str, int] = {}

    def observe(name: str, values: Tensor) -> None:
        sizes[name] = values.numel() // shape[0]

    module(torch.zeros(*shape, device=next(module.parameters()).device), observe)
    return sizes
