"""PyTorch: checkpoints, TorchScript and exported programs as modules, ONNX files through our executor."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rcompress.artifacts.files import require_file, sha256_of
from rcompress.artifacts.machine import available_cores
from rcompress.artifacts.onnx_file import parse_description, read_onnx
from rcompress.engines.base import Array, EngineInfo, FloatArray, RunOptions, require_images
from rcompress.engines.graph_io import dtype_of, graph_input, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.export.torch_formats import METADATA_FILE
from rcompress.models.rebuild import load_model

MATRIX_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
MATRIX_OPERATORS = ("Conv", "Gemm", "MatMul")


class TorchEngine:
    """A module in evaluation mode, in its own precision.

    PyTorch has one number of CPU threads for the whole process: it is set before every run.
    """

    def __init__(self, module: nn.Module, info: EngineInfo, options: RunOptions) -> None:
        self._device = usable_device(options.device)
        self._module: nn.Module | None = module.to(self._device)
        self._threads = options.threads or available_cores()
        self._info = info

    @property
    def info(self) -> EngineInfo:
        return self._info

    def run(self, images: Array) -> FloatArray:
        require_images(self._info, images)
        with torch.inference_mode():
            logits = self._forward(torch.from_numpy(images).to(self._device))
        return logits.float().cpu().numpy()

    def prepare(self, images: Array) -> Callable[[], Any]:
        """Inputs lie on the device; on a GPU a call waits for the result, which stays there."""
        require_images(self._info, images)
        held = torch.from_numpy(images).to(self._device)
        on_gpu = self._device.type == "cuda"

        @torch.inference_mode()
        def call() -> None:
            self._forward(held)
            if on_gpu:
                torch.cuda.synchronize(self._device)

        return call

    def close(self) -> None:
        self._module = None

    def _forward(self, images: Tensor) -> Tensor:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        assert self._module is not None, "the engine was closed"
        logits: Tensor = self._module(images)
        return logits


def load(path: Path, options: RunOptions = RunOptions()) -> TorchEngine:
    """Load a checkpoint (.pth), TorchScript (.pt), an exported program (.pt2) or an ONNX file.

    Raises:
        RcompressError: it cannot be read or rebuilt, or the device is not there.
    """
    if path.suffix == ".onnx":
        return _from_onnx(path, options)
    return _from_archive(path, options) if path.suffix in (".pt", ".pt2") else _from_checkpoint(path, options)


def _from_checkpoint(path: Path, options: RunOptions) -> TorchEngine:
    loaded = load_model(path, options.arch)
    layers = (module for module in loaded.module.modules() if isinstance(module, MATRIX_MODULES))
    info = EngineInfo(
        backend="torch",
        path=path,
        sha256=loaded.sha256,
        spec=loaded.spec,
        input_shape=(None, *loaded.spec.preprocessing.input_size),
        device=device_name(options.device),
        executed=dict(Counter(_precision_name(layer.weight.dtype) for layer in layers)),
    )
    return TorchEngine(loaded.module, info, options)


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


def _from_archive(path: Path, options: RunOptions) -> TorchEngine:
    module, description = _opened(path)
    if not description:
        raise RcompressError(path, "was not written by rcompress", "write it with `rcompress export`")
    spec = parse_description(path, description)
    info = EngineInfo(
        backend="torch",
        path=path,
        sha256=sha256_of(path),
        spec=spec,
        input_shape=(None, *spec.preprocessing.input_size),
        device=device_name(options.device),
    )
    return TorchEngine(module, info, options)


def _opened(path: Path) -> tuple[nn.Module, str]:
    """The module in a TorchScript or torch.export archive, and our description in it, empty where there is none."""
    require_file(path)
    extra: dict[str, Any] = {METADATA_FILE: ""}
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path, extra_files=extra).module(), extra[METADATA_FILE]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch announces TorchScript's end
            module: nn.Module = torch.jit.load(str(path), "cpu", extra)  # type: ignore[no-untyped-call]
        text = extra[METADATA_FILE]
        return module.eval(), text.decode() if isinstance(text, bytes) else text
    except Exception as error:  # zip, pickle, C++ and deserializer errors of many kinds
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise RcompressError(
            path, f"is truncated or no archive of PyTorch ({reason})", "export it again"
        ) from None


def usable_device(name: str) -> torch.device:
    """The device called ``name``, if it is there (``auto``: a GPU where there is one).

    Raises:
        RcompressError: it is no device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RcompressError(name, "is no device", "use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RcompressError(name, "is not on this machine", "use --device cpu")
    return device


def device_name(name: str) -> str:
    """A device in words: ``cpu`` or the GPU's name."""
    device = usable_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _precision_name(dtype: torch.dtype) -> str:
    return {torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}.get(dtype, "F32")
