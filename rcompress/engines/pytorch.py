"""PyTorch: checkpoints as modules, ONNX files through our executor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rcompress.artifacts.device import device_name, resolve_device
from rcompress.artifacts.onnx_file import read_onnx
from rcompress.engines.base import Array, EngineInfo, FloatArray, RunOptions, checked_run, require_images
from rcompress.engines.graph_io import dtype_of, graph_input, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.models.rebuild import load_model

MATRIX_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
MATRIX_OPERATORS = ("Conv", "Gemm", "MatMul")


class TorchEngine:
    """A module in evaluation mode, in its own precision.

    PyTorch has one number of CPU threads for the whole process: it is set before every run.
    """

    def __init__(self, module: nn.Module, info: EngineInfo, options: RunOptions) -> None:
        self._device = resolve_device(options.device)
        self._module: nn.Module | None = module.to(self._device)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # FP32 would multiply with 10 bits of the mantissa
        self._threads = options.cpu_threads
        self._info = info

    @property
    def info(self) -> EngineInfo:
        return self._info

    def run(self, images: Array) -> FloatArray:
        @torch.inference_mode()
        def forward() -> FloatArray:
            logits = self._forward(torch.from_numpy(images).to(self._device))
            return logits.float().cpu().numpy()

        return checked_run(self._info, images, forward)

    def prepare(self, images: Array) -> Callable[[], Any]:
        """Inputs lie on the device; on a GPU a call waits for the result, which stays there."""
        require_images(self._info, images)
        held = torch.from_numpy(images).to(self._device)
        on_gpu = self._device.type == "cuda"

        @torch.inference_mode()
        def call() -> Tensor:
            logits = self._forward(held)
            if on_gpu:
                torch.cuda.synchronize(self._device)
            return logits

        checked_run(self._info, images, call)
        return call

    def close(self) -> None:
        self._module = None

    def _forward(self, images: Tensor) -> Tensor:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        assert self._module is not None, "the engine was closed"
        logits: Tensor = self._module(images)
        return logits


class HalfPrecision(nn.Module):
    """A network that computes in ``dtype``, between an input and logits in FP32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module.to(dtype), dtype

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32, of images, float32."""
        logits: Tensor = self.module(images.to(self.dtype))
        return logits.float()


def load(path: Path, options: RunOptions = RunOptions()) -> TorchEngine:
    """Load a checkpoint or an ONNX file.

    Raises:
        RcompressError: it cannot be read or rebuilt, or the device is not there.
    """
    return _from_onnx(path, options) if path.suffix == ".onnx" else _from_checkpoint(path, options)


def _from_checkpoint(path: Path, options: RunOptions) -> TorchEngine:
    loaded = load_model(path, options.arch)
    dtype = _computed_type(loaded.stored, resolve_device(options.device))
    module = loaded.module if dtype == torch.float32 else HalfPrecision(loaded.module, dtype)
    layers = (layer for layer in module.modules() if isinstance(layer, MATRIX_MODULES))
    info = EngineInfo(
        backend="torch",
        path=path,
        sha256=loaded.sha256,
        spec=loaded.spec,
        input_shape=(None, *loaded.spec.preprocessing.input_size),
        device=device_name(options.device),
        executed=dict(Counter(_precision_name(layer.weight.dtype) for layer in layers)),
    )
    return TorchEngine(module, info, options)


def _from_onnx(path: Path, options: RunOptions) -> TorchEngine:
    found = read_onnx(path)
    value = graph_input(found.model, str(path))
    graph = TorchGraph(found.model, str(path))
    layers = sum(graph.operator_counts()[name] for name in MATRIX_OPERATORS)
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in graph.parameters())
    precision = _precision_name(next(graph.parameters()).dtype) if half else "F32"
    info = EngineInfo(
        backend="torch",
        path=path,
        sha256=found.sha256,
        spec=found.spec,
        input_shape=shape_of(value),
        input_dtype=dtype_of(value),
        device=device_name(options.device),
        executed={precision: layers},
    )
    return TorchEngine(graph, info, options)


def _computed_type(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """What a checkpoint of ``stored`` tensors computes in: on a CPU PyTorch's FP16 is many times slower than FP32."""
    return torch.float32 if stored == torch.float16 and device.type == "cpu" else stored


def _precision_name(dtype: torch.dtype) -> str:
    return {torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}.get(dtype, "F32")
