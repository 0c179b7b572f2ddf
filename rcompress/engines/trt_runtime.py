"""Running TensorRT plans: buffers, stream and event by pycuda on the device's primary context.

PyTorch uses the primary context too, so both work in one process; a context of pycuda's own would break that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rcompress.artifacts.files import sha256_of
from rcompress.engines.base import (
    Array,
    Backend,
    EngineInfo,
    FloatArray,
    RunOptions,
    checked_run,
    require_images,
    shape_text,
)
from rcompress.engines.plan_file import PlanBackend, Sidecar
from rcompress.engines.status import IMPORT_NAMES
from rcompress.engines.trt_log import executed_precisions, shared_logger
from rcompress.errors import RcompressError


class TensorRtEngine:
    """A plan on a GPU, with device buffers for its largest batch."""

    def __init__(
        self, path: Path, backend: PlanBackend, sidecar: Sidecar | None, options: RunOptions
    ) -> None:
        self._backend = backend
        self._trt = import_module(IMPORT_NAMES.get(backend, backend))
        self._cuda = import_module("pycuda.driver")
        self._cuda.init()
        device = self._device(options.device)
        self._primary = device.retain_primary_context()
        with self._current():
            self._open(path)
            self._info = self._described(path, backend, sidecar, device.name())

    @property
    def info(self) -> EngineInfo:
        return self._info

    def run(self, images: Array) -> FloatArray:
        """Logits, with both transfers."""

        def infer() -> FloatArray:
            with self._current():
                shape = self._bind(images)
                logits = np.empty(shape, self._element_type(self._output))
                self._execute()
                self._cuda.memcpy_dtoh_async(logits, self._buffers[self._output], self._stream)
                self._stream.synchronize()
            return logits.astype(np.float32, copy=False)

        return checked_run(self._info, images, infer)

    def prepare(self, images: Array) -> Callable[[], Any]:
        """The images lie on the GPU; a call enqueues the network and waits for its end, without transfers."""
        require_images(self._info, images)
        with self._current():
            self._bind(images)
            self._stream.synchronize()

        def call() -> None:
            with self._current():
                self._execute()
                self._done.record(self._stream)
                self._done.synchronize()

        return call

    def close(self) -> None:
        """Free buffers, stream, event, engine and the hold on the primary context, in that order."""
        with self._current():
            self._stream.synchronize()
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers.clear()
            del self._done, self._stream, self._execution, self._engine
        self._primary.detach()

    def _device(self, name: str) -> Any:
        index = int(name.partition(":")[2] or 0)
        if index >= self._cuda.Device.count():
            raise RcompressError(name, "is not on this machine", "use --device cuda")
        return self._cuda.Device(index)

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._primary.push()
        try:
            yield
        finally:
            self._primary.pop()

    def _open(self, path: Path) -> None:
        trt, logger = self._trt, shared_logger(self._backend)
        logger.clear()
        self._engine = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            reason = " ".join(logger.errors()[-1:]) or "it does not say why"
            raise RcompressError(
                path, f"does not load on this GPU ({reason})", "build it again on this machine"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self._input = next(name for name in names if modes[name] == trt.TensorIOMode.INPUT)
        self._output = next(name for name in names if modes[name] == trt.TensorIOMode.OUTPUT)
        self._execution = self._engine.create_execution_context()
        self._stream, self._done = self._cuda.Stream(), self._cuda.Event()
        largest = tuple(self._engine.get_tensor_profile_shape(self._input, 0)[2])
        self._execution.set_input_shape(self._input, largest)
        self._buffers = {
            name: self._cuda.mem_alloc(self._bytes(name)) for name in (self._input, self._output)
        }
        for name, buffer in self._buffers.items():
            self._execution.set_tensor_address(name, int(buffer))

    def _bytes(self, name: str) -> int:
        """Size of a tensor at the shape that is set now."""
        sizes: tuple[int, ...] = tuple(self._execution.get_tensor_shape(name))
        return math.prod(sizes) * self._element_type(name).itemsize

    def _element_type(self, name: str) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return found

    def _described(self, path: Path, backend: Backend, sidecar: Sidecar | None, device: str) -> EngineInfo:
        smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
        shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(self._input))
        return EngineInfo(
            backend=backend,
            path=path,
            sha256=sha256_of(path),
            spec=sidecar.spec if sidecar else None,
            input_shape=shape,
            input_dtype=self._element_type(self._input).name,
            device=device,
            executed=self._layers() or (sidecar.layers if sidecar else {}),
            batch_limits=(int(smallest[0]), int(largest[0])),
        )

    def _layers(self) -> dict[str, int]:
        inspector = self._engine.create_engine_inspector()
        form = self._trt.LayerInformationFormat.ONELINE
        return executed_precisions(
            inspector.get_layer_information(i, form) for i in range(self._engine.num_layers)
        )

    def _bind(self, images: Array) -> tuple[int, ...]:
        """Copy ``images`` to the GPU, and tell the network their shape; returns that of the logits."""
        if not self._info.allows(len(images)):
            smallest, largest = self._info.batch_limits or (1, 1)
            raise RcompressError(
                self._info.path,
                f"takes batches from {smallest} to {largest}, not {shape_text(images.shape)}",
                "build it with another --batch-range",
            )
        self._execution.set_input_shape(self._input, images.shape)
        self._cuda.memcpy_htod_async(self._buffers[self._input], np.ascontiguousarray(images), self._stream)
        return tuple(self._execution.get_tensor_shape(self._output))

    def _execute(self) -> None:
        if not self._execution.execute_async_v3(self._stream.handle):
            raise RcompressError(
                self._info.path, "TensorRT could not run it", "build it again on this machine"
            )
