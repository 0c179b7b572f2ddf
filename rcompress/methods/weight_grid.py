"""The integers that weights become: symmetric grids for each output channel, group of inputs, or layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bits = Literal[4, 8]
LEVELS: dict[Bits, int] = {4: 7, 8: 127}  # symmetric: -8 and -128 stay unused
CLIPS = np.linspace(1.0, 0.4, 31, dtype=np.float32)  # shares of the largest magnitude that 4 bits may keep

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class WeightGrid:
    """How the weights of one layer are rounded.

    Attributes:
        bits: 8: the largest magnitude becomes 127. 4: the scale errs least, squared, over all clips (7 levels
            are few: the largest magnitude is worth saturating; Banner et al. 2019, section 3).
        axis: of the output channels.
        per_channel: one scale for each output channel; else one for the layer.
        group: one scale for so many weights of a channel, which it divides (see `fitting_group`); None: see
            ``per_channel``.
    """

    bits: Bits
    axis: int
    per_channel: bool = True
    group: int | None = None

    def scales(self, values: FloatArray, floor: FloatArray) -> FloatArray:
        """Scales, float32: (channels,), () for a layer, (channels, groups) for groups.

        Args:
            values: the weights.
            floor: float32 (channels,), least scales, so that a nearly dead channel's bias still fits its INT32.
        """
        rows = self._rows(values)
        found = _scales(rows, self.bits)
        if self.group is not None:
            return _positive(found.reshape(values.shape[self.axis], -1))
        if not self.per_channel:
            return _positive(np.maximum(found[0], floor.max()))
        return _positive(np.maximum(found, floor))

    def steps(self, values: FloatArray, scale: FloatArray) -> NDArray[np.int8]:
        """``values`` in steps of ``scale``, rounded half to even, saturated; int8 of the same shape."""
        levels = LEVELS[self.bits]
        steps = np.rint(values / self.spread(scale, values.shape))
        return np.asarray(np.clip(steps, -levels, levels), dtype=np.int8)

    def spread(self, scale: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """``scale`` as `scales` returns it, in a shape that broadcasts over weights of ``shape``."""
        if self.group is not None:
            others = [size for axis, size in enumerate(shape) if axis != self.axis]
            wide = np.repeat(scale, self.group, axis=1)
            return np.moveaxis(wide.reshape(shape[self.axis], *others), 0, self.axis)
        if scale.ndim == 0:
            return scale
        return scale.reshape([-1 if axis == self.axis else 1 for axis in range(len(shape))])

    def _rows(self, values: FloatArray) -> FloatArray:
        """The weights that share a scale, one row each."""
        flat = np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)
        if self.group is not None:
            return flat.reshape(-1, self.group)
        return flat if self.per_channel else flat.reshape(1, -1)


def fitting_group(group: int, values: FloatArray, axis: int) -> int:
    """The largest size up to ``group`` that divides a channel's weights: OpenVINO 2026.4 takes no rest.

    All of them where that would be less than a quarter of ``group``: a scale for so few saves nothing.
    """
    inputs = values.size // values.shape[axis]
    found = max(size for size in range(1, min(group, inputs) + 1) if inputs % size == 0)
    return inputs if 4 * found < group else found


def _positive(scale: FloatArray) -> FloatArray:
    """A scale of 1 where all weights are zero and it does not matter."""
    return np.where(scale > 0, scale, 1.0).astype(np.float32)


def _scales(rows: FloatArray, bits: Bits) -> FloatArray:
    largest = np.abs(rows).max(axis=1) / LEVELS[bits]
    if bits == 8:
        return np.asarray(largest, dtype=np.float32)
    errors = np.stack([_squared_error(rows, largest * clip, LEVELS[bits]) for clip in CLIPS])
    return np.asarray(largest * CLIPS[errors.argmin(axis=0)], dtype=np.float32)


def _squared_error(rows: FloatArray, scale: FloatArray, levels: int) -> FloatArray:
    step = _positive(scale)[:, None]
    return np.asarray(((np.clip(np.rint(rows / step), -levels, levels) * step - rows) ** 2).sum(axis=1))
