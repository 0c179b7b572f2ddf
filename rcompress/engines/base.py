"""The interface every backend implements: ``build`` writes an engine file, ``load`` makes one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rcompress.artifacts.spec import ModelSpec

Array = NDArray[np.generic]
FloatArray = NDArray[np.float32]
Backend = Literal["torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class RunOptions:
    """How an engine is to run.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads, 0 for all cores.
        arch: the user's own architecture (``package.module:callable``), for a checkpoint that was built by it.
    """

    device: str = "cpu"
    threads: int = 0
    arch: str | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says of itself once loaded.

    Attributes:
        backend: which runtime executes it.
        path, sha256: the file it came from (of a pair, the file that is opened).
        spec: the description that travels with it, None where the file has none.
        input_shape: (N, C, H, W), or (N, H, W, C) where the graph holds the preprocessing; None for a free axis.
        input_dtype: numpy's name: ``float32``, ``uint8``.
        device: where it runs, in words (``cpu``, ``NVIDIA H200``).
        executed: what really runs, as far as the runtime tells, in the order of first appearance: execution
            precision of the convolution and matrix layers to their count (``{"I8": 20, "F32": 1}``).
    """

    backend: Backend
    path: Path
    sha256: str
    spec: ModelSpec | None
    input_shape: tuple[int | None, ...]
    input_dtype: str = "float32"
    device: str = "cpu"
    executed: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """A loaded engine."""

    @property
    def info(self) -> EngineInfo: ...

    def run(self, images: Array) -> FloatArray:
        """Logits (N, classes) float32 of ``images``, shaped and typed as ``info`` says; any N that it allows."""

    def prepare(self, images: Array) -> Callable[[], Any]:
        """A call that runs once on inputs already in place and returns when the outputs are there, for timing."""

    def close(self) -> None:
        """Free what the runtime holds."""
