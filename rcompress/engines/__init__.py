"""ONNX -> runnable engine: one file per backend, one small interface (`base`)."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

from rcompress.artifacts.files import require_file
from rcompress.artifacts.spec import CHECKPOINT_SUFFIXES, ModelSpec
from rcompress.engines.base import Backend, BackendStatus, BuildOptions, Engine, EngineInfo, RunOptions
from rcompress.engines.selection import choose_backend
from rcompress.engines.status import available_backends, backend_status
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress

__all__ = [
    "Backend",
    "BackendStatus",
    "BuildOptions",
    "Engine",
    "EngineInfo",
    "RunOptions",
    "available_backends",
    "backend_status",
    "build_engine",
    "choose_backend",
    "load_engine",
]

MODULES: dict[Backend, str] = {
    "torch": "pytorch",
    "torch-x86": "torch_x86",
    "onnxruntime": "ort",
    "openvino": "ov",
    "tensorrt": "trt",
    "tensorrt-rtx": "trt",
}
DEVICES = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
LOADERS: dict[str, tuple[Backend, ...]] = {
    **dict.fromkeys(CHECKPOINT_SUFFIXES, ("torch",)),
    ".x86": ("torch-x86",),
    ".onnx": ("onnxruntime", "openvino", "torch"),
    ".xml": ("openvino",),
    ".plan": ("tensorrt", "tensorrt-rtx"),
}


def load_engine(path: Path, backend: Backend | None = None, options: RunOptions = RunOptions()) -> Engine:
    """Load any artifact that can be run; its suffix decides how, or ``backend`` where several can.

    Raises:
        RcompressError: no such file or device, a suffix that no backend runs, or whatever the backend refuses.
    """
    require_file(path)
    if not DEVICES.fullmatch(options.device):
        raise RcompressError(options.device, "no such kind of device", "use auto, cpu, cuda or cuda:N")
    allowed = LOADERS.get(path.suffix)
    if allowed is None:
        raise RcompressError(
            path, f"no backend runs {path.suffix or 'such'} files", f"give {', '.join(LOADERS)}"
        )
    if backend is not None and backend not in allowed:
        raise RcompressError(
            path, f"{backend} does not run {path.suffix} files", f"use {' or '.join(allowed)}"
        )
    chosen = backend or allowed[0]
    extra = {"backend": backend} if path.suffix == ".plan" else {}
    engine: Engine = _adapter(chosen).load(path, options, **extra)
    if options.device.startswith("cuda") and engine.info.device == "cpu":
        raise RcompressError(
            path, f"{chosen} runs it on the CPU, not on {options.device}", "use --device cpu"
        )
    return engine


def build_engine(
    model: onnx.ModelProto,
    spec: ModelSpec | None,
    path: Path,
    backend: Backend,
    options: BuildOptions = BuildOptions(),
    progress: Progress = SILENT,
) -> Path:
    """Build ``model`` as it is for ``backend`` into ``path``, with ``spec``, if any, as its description.

    Raises:
        RcompressError: the backend is not here, or refuses the graph.
    """
    choose_backend(backend, path)
    extra = {"backend": backend} if MODULES[backend] == "trt" else {}
    written: Path = _adapter(backend).build(model, spec, path, options, progress, **extra)
    return written


def _adapter(backend: Backend) -> Any:
    return import_module(f"rcompress.engines.{MODULES[backend]}")
