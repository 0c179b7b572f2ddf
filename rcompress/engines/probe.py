"""What runs in the process of its own in which an engine's peak memory is measured."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rcompress.engines import MODULES, load_engine
from rcompress.engines.base import Backend, EngineInfo, RunOptions
from rcompress.engines.inputs import random_inputs
from rcompress.measure.memory import forget_peak

RUNTIMES: dict[Backend, str] = {
    "torch": "torch",
    "torch-x86": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
}


def libraries(info: EngineInfo) -> list[str]:
    """What the engine stands on: importing it is no part of the engine's own memory."""
    names = [f"rcompress.engines.{MODULES[info.backend]}", RUNTIMES[info.backend]]
    arch = info.spec.arch if info.spec else None
    if RUNTIMES[info.backend] == "torch" and arch is not None:
        from rcompress.models.zoo import is_torchvisions

        names += ["torchvision"] * is_torchvisions(arch)
    return names


def engine_stages(
    path: str, backend: Backend, options: dict[str, Any], batch_sizes: list[int], imported: list[str]
) -> Iterator[None]:
    """Import, yield; load the engine; run the batch sizes, rising, and yield after each.

    What loading takes for a while (our reading of the file, a compiler's memory) does not count on a CPU: what the
    engine holds, and its runs, do.
    """
    for name in imported:
        import_module(name)
    yield
    engine = load_engine(Path(path), backend, RunOptions(**options))
    forget_peak("cpu")
    for batch in batch_sizes:
        call = engine.prepare(random_inputs(engine.info, batch))
        call()
        call()
        yield
