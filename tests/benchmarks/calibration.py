"""Calibration: accuracy in INT8 of a real network by each method and by others' quantizers; time and memory."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from rcompress.artifacts.spec import ModelSpec
from rcompress.cli.output import print_table
from rcompress.data import Split, balanced_indices, input_batches
from rcompress.engines import Backend, build_engine, load_engine
from rcompress.engines.evaluation import evaluate_engine
from rcompress.export import onnx_from_module
from rcompress.measure.memory import peak_memory_bytes
from rcompress.methods.calibration import CalibrationMethod
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from tests.benchmarks.common import ONE_THREAD, torch_threads
from tests.benchmarks.others import nncf_int8, onnxruntime_int8, openvino_request
from tests.benchmarks.public import public_data, public_resnet32

IMAGES, BATCH = 512, 32
ENGINES: dict[Backend, str] = {"openvino": "q.xml", "onnxruntime": "q.onnx"}
WORK = "tests.benchmarks.calibration:calibrated"


@dataclass(frozen=True)
class Bench:
    """A network as a graph, the images that it is calibrated on and judged by, a folder for its engines."""

    model: onnx.ModelProto
    spec: ModelSpec
    train: Split
    test: Split
    folder: Path

    def images(self, count: int) -> Iterator[torch.Tensor]:
        """Class-balanced network inputs, in batches."""
        chosen = self.train.subset(balanced_indices(self.train.labels, count, seed=0))
        for images, _ in input_batches(chosen, self.spec.preprocessing, BATCH):
            yield images

    def top1(self, made: onnx.ModelProto, backend: Backend) -> float:
        """Percent of the test images."""
        engine = load_engine(
            build_engine(made, self.spec, self.folder / ENGINES[backend], backend), None, ONE_THREAD
        )
        return evaluate_engine(engine, self.test, self.spec.preprocessing, 250).top1_percent


def run(smoke: bool) -> None:
    """Two tables: method and weight scales down, seconds and top-1 across; what ten times the images cost."""
    root = public_data("calibration")
    if root is None:
        return
    count = 32 if smoke else IMAGES
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        bench = opened(root, Path(folder), smoke)
        rows = _own_rows(bench, count) + _other_rows(bench, count)
        title = (
            f"ResNet-32 in INT8 on CIFAR-10, calibrated on {count} class-balanced training images, 1 thread"
        )
        columns = ("method", "weights", "seconds", *(f"{name} top-1 %" for name in ENGINES))
        print_table(title, columns, rows, left=2)
        _times(bench, count, trials=1 if smoke else 5)
        _scaling(bench, root, count)


def opened(root: Path, folder: Path, smoke: bool = False) -> Bench:
    """The imported ResNet-32 and CIFAR-10 under ``root``."""
    loaded, dataset = public_resnet32(root, folder)
    train, test = dataset.split("train"), dataset.split("test")
    test = test.subset(balanced_indices(test.labels, 100, seed=0)) if smoke else test
    return Bench(onnx_from_module(loaded.module, loaded.spec), loaded.spec, train, test, folder)


def _own_rows(bench: Bench, count: int) -> list[list[str]]:
    rows = []
    for method in get_args(CalibrationMethod):
        for per_channel in (True, False):
            began = time.monotonic()
            options = QuantizeOptions(method=method, per_channel=per_channel)
            made = quantize_onnx(bench.model, bench.images(count), count, options).model
            seconds = time.monotonic() - began
            scores = [f"{bench.top1(made, backend):.2f}" for backend in ENGINES]
            rows.append([f"ours, {method}", _scales(per_channel), f"{seconds:.1f}", *scores])
    return rows


def _other_rows(bench: Bench, count: int) -> list[list[str]]:
    images = [batch.numpy() for batch in bench.images(count)]
    rows = []
    for per_channel in (True, False):
        began = time.monotonic()
        made = onnxruntime_int8(bench.model, images, per_channel)
        seconds = time.monotonic() - began
        score = f"{bench.top1(made, 'onnxruntime'):.2f}"
        rows.append(["ONNX Runtime's tools", _scales(per_channel), f"{seconds:.1f}", "", score])
    began = time.monotonic()
    try:
        network = nncf_int8(bench.model, images)
    except ImportError as error:
        return [*rows, ["NNCF", f"not here ({error.name})", "", "", ""]]
    seconds = time.monotonic() - began
    return [*rows, ["NNCF", "per channel", f"{seconds:.1f}", f"{_openvino_top1(network, bench):.2f}", ""]]


def _openvino_top1(network: object, bench: Bench) -> float:
    right, request = 0, openvino_request(network, np.zeros((250, 3, 32, 32), np.float32))
    for images, labels in input_batches(bench.test, bench.spec.preprocessing, 250):
        logits: NDArray[np.float32] = request.infer([np.resize(images.numpy(), (250, 3, 32, 32))])[0]
        right += int((logits.argmax(1)[: len(labels)] == labels.numpy()).sum())
    return 100 * right / len(bench.test)


def _times(bench: Bench, count: int, trials: int) -> None:
    """Seconds from images in memory to the quantized graph, everyone in turn; the median and the spread of trials."""
    images = [batch.numpy() for batch in bench.images(count)]
    makers: dict[str, Callable[[], object]] = {
        "ours, minmax": lambda: quantize_onnx(bench.model, map(torch.from_numpy, images), count),
        "ONNX Runtime's tools": lambda: onnxruntime_int8(bench.model, images),
        "NNCF": lambda: nncf_int8(bench.model, images),
    }
    found: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(trials):
        for name, make in makers.items():
            began = time.monotonic()
            with contextlib.suppress(ImportError):
                make()
                found[name].append(time.monotonic() - began)
    cells = [
        [name, f"{median(seconds):.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}"]
        for name, seconds in found.items()
        if seconds
    ]
    print_table(f"Calibrating on {count} images, per channel, in turns", ("who", "seconds", "trials"), cells)


def _scaling(bench: Bench, root: Path, count: int) -> None:
    """Time, and peak memory in a process of its own, of calibrating on ``count`` images and on ten times that."""
    rows = []
    for many in (count, 10 * count):
        began = time.monotonic()
        quantize_onnx(bench.model, bench.images(many), many, QuantizeOptions())
        seconds = time.monotonic() - began
        rows.append((many, seconds, peak_memory_bytes(WORK, [str(root), many])[-1]))
    (_, first, least), (_, second, most) = rows
    title = f"Ten times the images: {second / first:.2f}x the time, {100 * (most / least - 1):+.1f} % memory"
    cells = [[str(many), f"{seconds:.2f}", f"{peak / 2**20:.1f}"] for many, seconds, peak in rows]
    print_table(title, ("images", "seconds", "peak memory (MiB)"), cells, left=0)


def calibrated(root: str, count: int) -> Iterator[None]:
    """Work for `peak_memory_bytes`: everything but the imports, the data set in memory included."""
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        yield
        bench = opened(Path(root), Path(folder))
        quantize_onnx(bench.model, bench.images(count), count, QuantizeOptions())
        yield


def _scales(per_channel: bool) -> str:
    return "per channel" if per_channel else "per tensor"
