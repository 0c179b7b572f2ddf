"""Inputs for timing: of the right shape and type, of no meaning."""

from __future__ import annotations

import numpy as np

from rcompress.engines.base import Array, EngineInfo
from rcompress.errors import RcompressError


def random_inputs(info: EngineInfo, batch: int) -> Array:
    """A batch as ``info`` asks for: standard normal floats, or uniform bytes; always the same values.

    Raises:
        RcompressError: the engine leaves the image size open.
    """
    described = _described(info) if info.spec else info.input_shape[1:]
    shape = [size or known for size, known in zip(info.input_shape[1:], described, strict=True)]
    sizes = [size for size in shape if size is not None]
    if len(sizes) < len(info.input_shape) - 1:
        raise RcompressError(
            info.path, "leaves the image size open", "export it with a fixed height and width"
        )
    generator = np.random.default_rng(0)
    if info.input_dtype == "uint8":
        return generator.integers(0, 256, (batch, *sizes), dtype=np.uint8)
    return generator.standard_normal((batch, *sizes), dtype=np.float32).astype(info.input_dtype, copy=False)


def _described(info: EngineInfo) -> tuple[int, ...]:
    """The size of one input as the description has it: what an open axis is timed at."""
    assert info.spec is not None
    channels, height, width = info.spec.preprocessing.input_size
    return (height, width, channels) if info.spec.preprocessing.in_graph else (channels, height, width)
