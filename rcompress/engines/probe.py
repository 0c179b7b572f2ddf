"""What runs in the process of its own in which an engine's peak memory is measured."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rcompress.engines import MODULES, load_engine
from rcompress.engines.base import Backend, RunOptions
from rcompress.engines.inputs import random_inputs

RUNTIMES: dict[str, str] = {
    "torch": "torchvision",
    "torch-x86": "torchvision",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
}


def engine_stages(
    path: str, backend: Backend, options: dict[str, Any], batch_sizes: list[int]
) -> Iterator[None]:
    """Import the runtime, yield; load the engine; run the batch sizes, rising, and yield after each."""
    import_module(f"rcompress.engines.{MODULES[backend]}")
    import_module(RUNTIMES[backend])
    yield
    engine = load_engine(Path(path), backend, RunOptions(**options))
    for batch in batch_sizes:
        call = engine.prepare(random_inputs(engine.info, batch))
        call()
        call()
        yield
