"""One layer's share in a group of channels: which of its weights belong to which channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Side = Literal["out", "in", "both"]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Member:
    """What of one layer goes with the channels of a group.

    Attributes:
        name: the layer's, or the parameter's where it belongs to no layer that the tracer knows.
        layer: the layer or parameter itself.
        side: ``out`` it makes the channels, ``in`` it reads them, ``both`` it does something to each of them.
        channels: int64 (n,), channels of this layer.
        roots: int64 (n,), the group's channels that these belong to.
        axis: of a parameter: the one that counts channels.
    """

    name: str
    layer: nn.Module | nn.Parameter
    side: Side
    channels: Tensor
    roots: Tensor
    axis: int = 0

    @property
    def makes_channels(self) -> bool:
        """Whether this is a convolution or linear layer whose outputs the channels are."""
        return self.side == "out" and isinstance(self.layer, Convolution | nn.Linear)

    @property
    def reads_channels(self) -> bool:
        """Whether this is a convolution or linear layer whose inputs the channels are."""
        return self.side == "in" and isinstance(self.layer, Convolution | nn.Linear)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that hold values of single channels: weights first, then biases."""
        for parameter in own_parameters(self.layer):
            if self._axis_of(parameter) is not None:
                yield parameter

    def rows(self, parameter: nn.Parameter, values: Tensor) -> Tensor:
        """``values``, shaped as ``parameter`` (its data or gradient), by channel: (n, values per channel)."""
        return self._by_channel(parameter, values)[self._where(parameter)].flatten(1)

    def write_rows(self, parameter: nn.Parameter, places: Tensor, rows: Tensor) -> None:
        """Overwrite the `rows` at ``places``, int64 (m,), of ``parameter``'s data with ``rows`` (m, values)."""
        where = tuple(index[places] for index in self._where(parameter))
        target = self._by_channel(parameter, parameter.detach())
        target[where] = rows.view_as(target[where])

    def length(self, parameter: nn.Parameter) -> int:
        """How many channels of the layer, of this group or others, ``parameter`` holds values of."""
        led_by = self._by_channel(parameter, parameter).shape
        return led_by[0] * led_by[1] if self._grouped_input else led_by[0]

    def zero(self, roots: Tensor) -> None:
        """Make all values of the group's channels ``roots``, int64 (k,), zero in place."""
        chosen = torch.isin(self.roots, roots)
        with torch.no_grad():
            for parameter in self.parameters():
                where = tuple(index[chosen] for index in self._where(parameter))
                self._by_channel(parameter, parameter.detach())[where] = 0

    def _axis_of(self, parameter: nn.Parameter) -> int | None:
        """The axis of ``parameter`` that counts this member's channels; None: it has no value of one channel."""
        if isinstance(self.layer, nn.Parameter):
            return self.axis % parameter.dim()
        if isinstance(self.layer, Convolution | nn.Linear):
            if parameter.dim() == 1:
                return None if self.side == "in" else 0
            transposed = isinstance(self.layer, Convolution) and self.layer.transposed
            return int((self.side == "in") != transposed)
        return None if parameter.numel() == 1 else 0

    def _by_channel(self, parameter: nn.Parameter, values: Tensor) -> Tensor:
        """A view of ``values``, led by channels: by (convolution group, channel within) where inputs are grouped."""
        axis = self._axis_of(parameter)
        assert axis is not None
        if self._grouped_input:
            assert isinstance(self.layer, Convolution)
            shape = (self.layer.groups, values.shape[0] // self.layer.groups, *values.shape[1:])
            return values.view(shape).transpose(1, 2)
        return values.movedim(axis, 0).unsqueeze(-1)

    def _where(self, parameter: nn.Parameter) -> tuple[Tensor, ...]:
        if self._grouped_input:
            return self.channels // parameter.shape[1], self.channels % parameter.shape[1]
        return (self.channels,)

    @property
    def _grouped_input(self) -> bool:
        """A grouped convolution's weight (out, in / groups, ...) counts its inputs within each group."""
        return self.side == "in" and isinstance(self.layer, Convolution) and self.layer.groups > 1


def own_parameters(layer: nn.Module | nn.Parameter) -> Iterator[nn.Parameter]:
    """A parameter itself, or a layer's own ones, without those of its parts."""
    if isinstance(layer, nn.Parameter):
        yield layer
    else:
        yield from layer.parameters(recurse=False)
