"""Whether a written graph decides as the network that was trained: counted image by image, engine by engine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rcompress.artifacts.spec import Preprocessing
from rcompress.data import Split, input_batches
from rcompress.engines import Engine, RunOptions, load_engine
from rcompress.engines.evaluation import engine_logits
from rcompress.engines.ort import OnnxRuntimeEngine
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress, tracked

BATCH_SIZE = 100


@dataclass(frozen=True)
class Agreement:
    """How one engine decides, against the trained network.

    Attributes:
        engine: in words.
        images: how many both were shown.
        flips: how many of them the engine puts into another class.
        fault: why the engine cannot run the graph here; then nothing was counted.
    """

    engine: str
    images: int = 0
    flips: int = 0
    fault: str | None = None

    def sentence(self) -> str:
        """One line for people."""
        if self.fault is not None:
            return f"{self.engine} cannot run it: {self.fault}"
        if self.flips == 0:
            return f"{self.engine} picks the trained network's class on all {self.images:,} images"
        return f"{self.engine} picks another class than the trained network on {self.flips} of {self.images:,} images"

    def to_dict(self) -> dict[str, Any]:
        """Primitives."""
        return asdict(self)


def agreements(
    path: Path, module: nn.Module, split: Split, preprocessing: Preprocessing, progress: Progress = SILENT
) -> list[Agreement]:
    """Compare the classes that the graph in ``path`` picks with those of ``module``, which it was written from.

    ONNX Runtime without its optimisations computes the graph as it stands. Even so a sum of products that lies on
    the edge between two integers may be rounded the other way, as its terms are added in another order: the trained
    network in FP64 shows how many classes hang on that alone. With optimisations, and in OpenVINO, more is fused.

    Args:
        path: an .onnx file.
        module: the trained network, in evaluation mode on the CPU; compared in FP32.
        split: images; no label is read.
    """
    expected = _classes(module, split, preprocessing, torch.float32, progress)
    exact = _classes(copy.deepcopy(module).double(), split, preprocessing, torch.float64, progress)
    itself = Agreement("the network itself in FP64", len(expected), int((exact != expected).sum()))
    threads = torch.get_num_threads()
    loaders: dict[str, Callable[[], Engine]] = {
        "unoptimised ONNX Runtime": lambda: OnnxRuntimeEngine(
            path, RunOptions(threads=threads), optimize=False
        ),
        "ONNX Runtime": lambda: load_engine(path, "onnxruntime", RunOptions(threads=threads)),
        "OpenVINO": lambda: load_engine(path, "openvino", RunOptions(threads=threads)),
    }
    return [
        itself,
        *(_compared(name, load, expected, split, preprocessing, progress) for name, load in loaders.items()),
    ]


def _compared(
    name: str,
    load: Callable[[], Engine],
    expected: NDArray[np.int64],
    split: Split,
    preprocessing: Preprocessing,
    progress: Progress,
) -> Agreement:
    try:
        engine = load()
    except RcompressError as error:
        return Agreement(name, fault=error.fault)
    try:
        logits, _ = engine_logits(engine, split, preprocessing, BATCH_SIZE, progress)
    finally:
        engine.close()
    return Agreement(name, len(expected), int((logits.argmax(axis=1) != expected).sum()))


@torch.inference_mode()
def _classes(
    module: nn.Module, split: Split, preprocessing: Preprocessing, dtype: torch.dtype, progress: Progress
) -> NDArray[np.int64]:
    """int64 (N,)."""
    count = -(-len(split) // BATCH_SIZE)
    batches = tracked(input_batches(split, preprocessing, BATCH_SIZE), count, f"classes in {dtype}", progress)
    return np.concatenate([module(images.to(dtype)).argmax(1).numpy() for images, _ in batches])
