"""How activation ranges are chosen: accuracy in INT8 of a real network, each method, both CPU engines."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rcompress.cli.output import print_table
from rcompress.data import Split, balanced_indices, input_batches, open_dataset
from rcompress.engines import Backend, build_engine, load_engine
from rcompress.engines.evaluation import evaluate_engine
from rcompress.export import onnx_from_module
from rcompress.methods.calibration import CalibrationMethod
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from rcompress.models import load_model
from rcompress.models.importing import ImportOptions, import_checkpoint
from tests.benchmarks.common import ONE_THREAD, torch_threads

DATA_VARIABLE = "RCOMPRESS_TEST_DATA"
IMAGES = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what these weights were trained with
ENGINES: dict[Backend, str] = {"openvino": "q.xml", "onnxruntime": "q.onnx"}


def run(smoke: bool) -> None:
    """One table: method and weight scales down, seconds and top-1 across."""
    root = Path(os.environ.get(DATA_VARIABLE, Path(__file__).parents[3] / "shared"))
    weights = root / "models" / "akamaster" / "resnet32-d509ac18.th"
    if not weights.is_file():
        print(f"calibration: left out, {DATA_VARIABLE} names no folder with {weights.name}", file=sys.stderr)
        return
    dataset = open_dataset("cifar10", root / "data")
    train, test = dataset.split("train"), dataset.split("test")
    images = train.subset(balanced_indices(train.labels, 32 if smoke else IMAGES, seed=0))
    test = test.subset(balanced_indices(test.labels, 100, seed=0)) if smoke else test
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        checkpoint = Path(folder) / "r32.pth"
        preprocessing = replace(dataset.preprocessing(), mean=MEAN, std=STD)
        import_checkpoint(weights, checkpoint, ImportOptions("resnet32", preprocessing, {"shortcut": "pad"}))
        rows = _rows(checkpoint, images, test, Path(folder))
    title = f"ResNet-32 in INT8 on CIFAR-10, calibrated on {len(images)} class-balanced training images"
    print_table(
        title, ("method", "weights", "seconds", *(f"{name} top-1 %" for name in ENGINES)), rows, left=2
    )


def _rows(checkpoint: Path, images: Split, test: Split, folder: Path) -> list[list[str]]:
    loaded = load_model(checkpoint)
    model, preprocessing = onnx_from_module(loaded.module, loaded.spec), loaded.spec.preprocessing
    batches = [batch for batch, _ in input_batches(images, preprocessing, 32)]
    rows = []
    for method in get_args(CalibrationMethod):
        for per_channel in (True, False):
            began = time.monotonic()
            options = QuantizeOptions(method=method, per_channel=per_channel)
            made = quantize_onnx(model, batches, len(images), options).model
            seconds = time.monotonic() - began
            scores = [
                _top1(build_engine(made, loaded.spec, folder / name, backend), test)
                for backend, name in ENGINES.items()
            ]
            scales = "per channel" if per_channel else "per tensor"
            rows.append([method, scales, f"{seconds:.1f}", *(f"{score:.2f}" for score in scores)])
    return rows


def _top1(path: Path, test: Split) -> float:
    engine = load_engine(path, None, ONE_THREAD)
    assert engine.info.spec is not None
    return evaluate_engine(engine, test, engine.info.spec.preprocessing, 250).top1_percent
