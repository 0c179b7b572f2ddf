"""The interface every backend implements: ``build`` writes an engine file, ``load`` makes one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rcompress.artifacts.machine import available_cores
from rcompress.artifacts.spec import ModelSpec
from rcompress.errors import RcompressError, is_out_of_memory

OUR_FAULTS = (AssertionError, AttributeError, KeyError, NameError, TypeError)
"""What no runtime raises of its own, nor any image brings about."""

Array = NDArray[np.generic]
FloatArray = NDArray[np.float32]
Backend = Literal["torch", "torch-x86", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Suffix = Literal[".x86", ".onnx", ".xml", ".plan"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Shaped(Protocol):
    """An array or tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


Outputs = TypeVar("Outputs", bound=Shaped)


@dataclass(frozen=True)
class RunOptions:
    """How an engine is to run.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the GPU where there is one and the runtime uses it.
        threads: CPU threads, 0 for all cores that this process may use.
        arch: the user's own architecture (``package.module:callable``), for a checkpoint built by it.
    """

    device: str = "auto"
    threads: int = 0
    arch: str | None = None

    @property
    def cpu_threads(self) -> int:
        """How many that are."""
        return self.threads or available_cores()


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is to be built.

    Attributes:
        precision: what the graph was made for; adapters act on it only where a runtime takes it as a setting.
        batch_range: smallest, usual and largest batch of a TensorRT engine (a free batch axis elsewhere).
        workspace_bytes: TensorRT's scratch memory at most; None: its own default.
        target: the GPU to build for where none is present (``sm_86``), TensorRT-RTX only.
        hardware_compatible: the plan runs on other GPUs from Ampere on.
        sparse_weights: TensorRT may use sparse tensor cores where weights are 2:4 along input channels.
        timing_cache: file that TensorRT reads its timings from and writes them to.
    """

    precision: Precision = "fp32"
    batch_range: tuple[int, int, int] = (1, 1, 64)
    workspace_bytes: int | None = None
    target: str | None = None
    hardware_compatible: bool = False
    sparse_weights: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used on this machine.

    ``version`` is None where it is not installed; ``fault`` says why it cannot run engines here (None: it
    can), and ``remedy`` what to do about it.
    """

    backend: Backend
    version: str | None
    fault: str | None = None
    remedy: str | None = None

    @property
    def usable(self) -> bool:
        return self.fault is None


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says of itself once loaded.

    Attributes:
        backend: which runtime executes it.
        path, sha256: the file it came from (of a pair, the file that is opened).
        spec: the description that travels with it, None where the file has none.
        input_shape: (N, C, H, W), or (N, H, W, C) where the graph prepares the images; None: a free axis.
        batch_limits: smallest and largest batch, where the engine was built for some (TensorRT); None: any that the
            shape allows.
        input_dtype: numpy's name: ``float32``, ``uint8``.
        device: where it runs, in words (``cpu``, ``NVIDIA H200``).
        executed: what really runs, as far as the runtime tells: execution precision of the convolution and
            matrix layers (I8, F32, BF16, F16) to their count, as in ``{"I8": 20, "F32": 1}``.
    """

    backend: Backend
    path: Path
    sha256: str
    spec: ModelSpec | None
    input_shape: tuple[int | None, ...]
    input_dtype: str = "float32"
    device: str = "cpu"
    executed: dict[str, int] = field(default_factory=dict)
    batch_limits: tuple[int, int] | None = None

    def nearest_batch(self, batch: int) -> int:
        """``batch`` where the engine takes so many images at once, else the size it takes that is nearest."""
        fixed = self.input_shape[0]
        if fixed is not None:
            return fixed
        smallest, largest = self.batch_limits or (batch, batch)
        return min(max(batch, smallest), largest)

    def allows(self, batch: int) -> bool:
        """Whether it takes so many images at once."""
        return self.nearest_batch(batch) == batch


class Engine(Protocol):
    """A loaded engine."""

    @property
    def info(self) -> EngineInfo: ...

    def run(self, images: Array) -> FloatArray:
        """Logits (N, classes) float32 of ``images``, shaped and typed as ``info`` says; any N that it allows.

        Raises:
            RcompressError: the shape or dtype is another one.
        """

    def prepare(self, images: Array) -> Callable[[], Any]:
        """A call that runs once on inputs in place and returns when the outputs are there, for timing."""

    def close(self) -> None:
        """Free what the runtime holds."""


def require_images(info: EngineInfo, images: Array) -> None:
    """Check ``images`` against what an engine takes.

    Raises:
        RcompressError: another dtype, rank or size, or a batch that the engine does not allow.
    """
    fits = len(images.shape) == len(info.input_shape) and all(
        wanted in (None, size) for wanted, size in zip(info.input_shape, images.shape, strict=True)
    )
    if not fits or images.dtype.name != info.input_dtype:
        raise RcompressError(
            info.path,
            f"takes {info.input_dtype} of shape {shape_text(info.input_shape)}, "
            f"not {images.dtype.name} of {shape_text(images.shape)}",
            "give it images of its own size and a batch that it allows",
        )


def checked_run(info: EngineInfo, images: Array, run: Callable[[], Outputs]) -> Outputs:
    """What ``run`` makes of ``images``, a row for each; what a runtime raises of its own becomes one line, but for
    a lack of memory.

    Raises:
        RcompressError: ``images`` are not what the engine takes, or the network cannot be run on so many.
    """
    require_images(info, images)
    try:
        logits = run()
    except (RcompressError, *OUR_FAULTS):
        raise
    except Exception as error:  # ONNX Runtime has a class for each status code, derived from nothing else
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RcompressError(
            info.path,
            f"{info.backend} cannot run it on {shape_text(images.shape)} ({reason})",
            "try --batch-size 1, or another --backend",
        ) from error
    if logits.shape[:1] != images.shape[:1]:
        raise RcompressError(
            info.path,
            f"gives outputs of {tuple(logits.shape)} for {len(images)} images, not a row for each",
            "export it with a free batch axis, or try --batch-size 1",
        )
    return logits


def shape_text(shape: Sequence[int | None]) -> str:
    """``N x 3 x 32 x 32``: free axes are called N."""
    return " x ".join("N" if size is None else str(size) for size in shape)
