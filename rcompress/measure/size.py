"""Sizes: of files on disk, and of the weights alone as they are stored."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from rcompress.measure.graph import constant_tensors, element_count, parameter_tensors

PACKED_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4}
"""Types that are packed below one byte; of all others NumPy knows the size."""


@dataclass(frozen=True)
class Weights:
    """What the tensors of a network hold.

    Attributes:
        stored_bytes: all stored tensors as they are stored, running means, scales and shapes included.
        parameters: values that were trained, without buffers, scales and zero points.
        nonzero_parameters: those that are not exactly zero.
    """

    stored_bytes: int
    parameters: int
    nonzero_parameters: int

    @property
    def sparsity_percent(self) -> float:
        """Share of the parameters that is exactly zero."""
        return 100.0 * (1 - self.nonzero_parameters / self.parameters) if self.parameters else 0.0

    def metrics(self) -> dict[str, int]:
        """The figures in the records' vocabulary."""
        return {
            "weights_bytes": self.stored_bytes,
            "parameters": self.parameters,
            "nonzero_parameters": self.nonzero_parameters,
        }


def size_bytes(path: Path) -> int:
    """Bytes on disk of what must be deployed: an OpenVINO .xml counts with its .bin."""
    parts = [path]
    if path.suffix == ".xml":
        parts.append(path.with_suffix(".bin"))
    return sum(part.stat().st_size for part in parts)


def zipped_bytes(path: Path) -> int:
    """What a file takes when it is compressed (DEFLATE, level 6), as zip archives and web servers do."""
    packer = zlib.compressobj(6)
    with path.open("rb") as stream:
        packed = sum(len(packer.compress(part)) for part in iter(lambda: stream.read(2**20), b""))
    return packed + len(packer.flush())


def module_weights(module: nn.Module) -> Weights:
    """Of a module: ``stored_bytes`` are those of its state dict."""
    stored = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    parameters = list(module.parameters())
    nonzero = sum(int(torch.count_nonzero(parameter)) for parameter in parameters)
    return Weights(stored, sum(parameter.numel() for parameter in parameters), nonzero)


def graph_weights(model: onnx.ModelProto) -> Weights:
    """Of an ONNX graph: ``stored_bytes`` are those of its initializers and constants."""
    parameters = parameter_tensors(model).values()
    return Weights(
        stored_bytes=sum(_stored_bytes(tensor) for tensor in constant_tensors(model).values()),
        parameters=sum(element_count(tensor) for tensor in parameters),
        nonzero_parameters=sum(int(np.count_nonzero(numpy_helper.to_array(t))) for t in parameters),
    )


def _stored_bytes(tensor: TensorProto) -> int:
    bits = PACKED_BITS.get(tensor.data_type)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.ceil(element_count(tensor) * bits / 8)
