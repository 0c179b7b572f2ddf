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

from rcompress.measure.graph import constant_tensors, element_count, parameter_tensors, type_bits


@dataclass(frozen=True)
class Weights:
    """What the tensors of a network hold.

    Attributes:
        stored_bytes: all stored tensors as they are stored, running means, scales and shapes included.
        parameters: values that were trained, without buffers, scales and zero points.
        nonzero_parameters: those that are not exactly zero.
        nonzero_bits: what these take, each in the bits of its type.
    """

    stored_bytes: int
    parameters: int
    nonzero_parameters: int
    nonzero_bits: int

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
            "nonzero_bits": self.nonzero_bits,
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
    nonzero = [int(torch.count_nonzero(parameter)) for parameter in parameters]
    bits = sum(8 * p.element_size() * count for p, count in zip(parameters, nonzero, strict=True))
    return Weights(stored, sum(parameter.numel() for parameter in parameters), sum(nonzero), bits)


def graph_weights(model: onnx.ModelProto) -> Weights:
    """Of an ONNX graph: ``stored_bytes`` are those of its initializers and constants."""
    parameters = parameter_tensors(model).values()
    nonzero = [int(np.count_nonzero(numpy_helper.to_array(tensor))) for tensor in parameters]
    bits = [type_bits(tensor.data_type) * count for tensor, count in zip(parameters, nonzero, strict=True)]
    return Weights(
        stored_bytes=sum(_stored_bytes(tensor) for tensor in constant_tensors(model).values()),
        parameters=sum(element_count(tensor) for tensor in parameters),
        nonzero_parameters=sum(nonzero),
        nonzero_bits=sum(bits),
    )


def _stored_bytes(tensor: TensorProto) -> int:
    return math.ceil(element_count(tensor) * type_bits(tensor.data_type) / 8)
