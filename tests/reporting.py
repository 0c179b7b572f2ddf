"""Records for the report's tests: one small family of artifacts with made-up figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import altair as alt

from rcompress.artifacts.records import Record, write_records

MACHINE = {
    "cpu": "Test CPU",
    "cores": 2,
    "instruction_set": "AVX2",
    "system": "Linux",
    "architecture": "x86_64",
}
TRAIN = {
    "command": "train",
    "options": {
        "arch": "resnet20",
        "image_size": 32,
        "recipe": "default",
        "epochs": 3,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.25,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "schedule": "onecycle",
        "warmup": 0.2,
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "cutout": 0,
        "ema": 0.998,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "precision": "fp32",
        "seed": 0,
        "init": None,
    },
    "invocation": ["train", "--arch", "resnet20", "--dataset", "digits", "--epochs", "3"],
    "created": "2026-01-02T03:04:05+00:00",
    "metrics": {"top1_percent": 91.0},
}
PRUNE = {"command": "prune", "options": {"ratio": 0.5}, "parent_name": "a.pth"}


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def record(
    kind: str,
    name: str,
    metrics: dict[str, Any],
    context: dict[str, Any],
    lineage: list[dict[str, Any]] | None = None,
    notes: list[str] | None = None,
    sha256: str | None = None,
    cpu: str = "Test CPU",
) -> Record:
    return Record(
        kind=kind,
        artifact=name,
        sha256=sha256 or sha(name),
        metrics=metrics,
        context=context,
        lineage=lineage if lineage is not None else [TRAIN],
        notes=notes or [],
        machine={**MACHINE, "cpu": cpu},
        versions={"torch": "2.15.0"},
    )


def evaluated(
    name: str, top1: float, backend: str = "torch", split: str = "test", images: int = 1000, **more: Any
) -> Record:
    metrics = {
        "top1_percent": top1,
        "top1_percent_low": top1 - 0.5,
        "top1_percent_high": top1 + 0.4,
        "loss": 0.3,
    }
    context = {"backend": backend, "dataset": "digits", "split": split, "images": images, "confusion": [[1]]}
    return record("eval", name, metrics, context, **more)


def benched(
    name: str,
    latency_ms: float,
    size_bytes: int = 2**20,
    backend: str = "torch",
    batch_size: int = 1,
    threads: int = 1,
    **more: Any,
) -> Record:
    metrics = {
        "latency_p50_ms": latency_ms,
        "latency_p50_ms_std": latency_ms / 100,
        "latency_p90_ms": latency_ms * 1.2,
        "throughput_images_per_s": 1000 * batch_size / latency_ms,
        "size_bytes": size_bytes,
        "parameters": size_bytes // 4,
    }
    context = {
        "backend": backend,
        "precision": "fp32",
        "device": "cpu",
        "threads": threads,
        "batch_size": batch_size,
        "transfers": "none",
    }
    return record("bench", name, metrics, context, **more)


def family() -> list[Record]:
    """A network, and its pruned and faster child."""
    child = {"backend": "onnxruntime", "lineage": [TRAIN, PRUNE]}
    return [
        evaluated("b.onnx", 90.0, **child),
        benched("b.onnx", 0.5, 2**18, **child),
        benched("b.onnx", 16.0, 2**18, batch_size=64, **child),
        evaluated("a.pth", 91.0),
        benched("a.pth", 2.0),
        benched("a.pth", 64.0, batch_size=64),
    ]


def write(folder: Path, records: list[Record], name: str = "all") -> Path:
    return write_records(folder / f"{name}.result.json", records)


def drawn(chart: alt.LayerChart) -> list[dict[str, Any]]:
    """The points that a chart draws from."""
    [points] = chart.to_dict()["datasets"].values()
    return list(points)


LAYERS = {
    "conv1": {"width": 16, "weights": 432, "nonzero": 432},
    "fc": {"width": 10, "weights": 160, "nonzero": 80},
}
PRUNED_LAYERS = {
    "conv1": {"width": 8, "weights": 216, "nonzero": 108},
    "fc": {"width": 10, "weights": 80, "nonzero": 80},
}


def on_dataset(dataset: str, macs: int, root: float, child: float) -> list[Record]:
    """A network of ``dataset`` and its pruned child, with their accuracies."""
    step = {**PRUNE, "parent_sha256": sha(f"{dataset}.pth")}
    records = [
        evaluated(f"{dataset}.pth", root),
        evaluated(f"{dataset}-p.pth", child, lineage=[TRAIN, step]),
    ]
    for found in records:
        found.context["dataset"] = dataset
        found.metrics["macs"] = macs
    return records


def log(folder: Path, name: str, epochs: int, **more: Any) -> Path:
    """A training log with falling losses."""
    path = folder / f"{name}.log.jsonl"
    rows = [
        {
            "epoch": n,
            "train_loss": 2.0 / n,
            "validation_loss": 2.5 / n,
            "validation_top1_percent": 10.0 * n,
            **more,
        }
        for n in range(1, epochs + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def everything() -> list[Record]:
    """Records that allow every plot; the training curves need logs beside them."""
    step = {**PRUNE, "parent_sha256": sha("a.pth")}
    root = benched("a.pth", 2.0)
    child = benched("b.pth", 1.0, 2**18, lineage=[TRAIN, step])
    first, second = evaluated("a.pth", 91.0), evaluated("b.pth", 90.0, lineage=[TRAIN, step])
    matrix = [[9, 1, 0], [0, 10, 0], [2, 2, 6]]
    for found, found_speed, layers, macs in (
        (first, root, LAYERS, 1000),
        (second, child, PRUNED_LAYERS, 500),
    ):
        found.context.update(layers=layers, confusion=matrix, classes=["cat", "dog", "emu"])
        found.metrics.update(macs=macs, parameters=macs, nonzero_parameters=macs)
        found_speed.metrics.update(parameters=macs)
    others = [*on_dataset("cifar10", 1000, 92.0, 90.0), *on_dataset("cifar100", 1005, 70.0, 65.0)]
    return [first, second, root, child, *others]
