"""README.md's tables of results, from the records under ``artifacts/reference``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rcompress.report.build import build_report, read_sources
from rcompress.report.text import with_spread

Facts = dict[int | None, dict[str, Any]]

RECORDS = Path(__file__).resolve().parent.parent / "artifacts" / "reference"

WAYS = {
    "FP32": (".pth", ".onnx"),
    "FP16": ("-fp16.onnx",),
    "BF16": ("-bf16.pth",),
    **{
        f"W8A8, {scales}, {method}": (f"-w8a8{tag}-{method}.onnx",)
        for scales, tag in (("per channel", ""), ("per tensor", "-tensor"))
        for method in ("minmax", "moving-average", "percentile", "entropy", "mse")
    },
    "W8A8, bias correction": ("-w8a8-bias.onnx",),
    "W8A8, equalized": ("-w8a8-equalize.onnx",),
    "W8A8, AdaRound": ("-w8a8-adaround.onnx",),
    "W8A8, trained (QAT)": ("-w8a8-qat.onnx",),
    "W4A8, to nearest": ("-w4a8.onnx",),
    "W4A8, bias correction": ("-w4a8-bias.onnx",),
    "W4A8, equalized": ("-w4a8-equalize.onnx",),
    "W4A8, AdaRound": ("-w4a8-adaround.onnx",),
    "W4A8, trained (QAT)": ("-w4a8-qat.onnx",),
    "W4A16, to nearest": ("-w4a16.onnx",),
    "k-means, 256 values": ("-clusters256.pth",),
    "k-means, 16 values": ("-clusters16.pth",),
    "binary weights": ("-binary.pth",),
    "PyTorch's own INT8": ("-w8a8.x86",),
}
ENGINES = {
    "FP32, PyTorch": ".pth",
    "FP32, ONNX Runtime": ".onnx",
    "FP32, OpenVINO": ".xml",
    "BF16, OpenVINO": "-bf16.xml",
    "INT8, PyTorch's own": "-w8a8.x86",
    "INT8, ONNX Runtime": "-w8a8-minmax.onnx",
    "INT8, OpenVINO": "-w8a8-minmax.xml",
}
STEMS = {"ResNet-32": "r32", "ResNet-20": "r20"}
TIMED = {"ResNet-18": "r18-untrained", **STEMS}


def quantization() -> str:
    """Accuracy and size of each way, and speed in each engine, as two Markdown tables."""
    records, _, _ = read_sources([RECORDS / "quantization"])
    report = build_report(records)
    rows = report.frame.to_dicts()
    qualities = table(
        ["", *(head for name in STEMS for head in (f"{name} top-1 (%)", "difference", "size (KiB)"))],
        [
            [way, *(cell for stem in STEMS.values() for cell in _quality(rows, stem, suffixes))]
            for way, suffixes in WAYS.items()
        ],
    )
    speeds = table(
        ["", *(f"{name}, batch {batch}" for name in TIMED for batch in (1, 64))],
        [
            [engine, *(_latency(rows, stem + suffix, batch) for stem in TIMED.values() for batch in (1, 64))]
            for engine, suffix in ENGINES.items()
        ],
    )
    machines = "; ".join(report.machines)
    speed = f"Speed on {machines}: 1 thread, p50 in ms per call of 1 and of 64 images."
    imported = {
        note.rpartition(": imported weights")[2] for note in report.notes if "imported weights" in note
    }
    origins = "\n".join(f"- ResNet-32: imported weights{rest}" for rest in imported)
    return "\n\n".join([qualities, speed, speeds, origins])


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, whose first column is text."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines))


def facts_of(rows: Iterable[dict[str, Any]]) -> dict[str, Facts]:
    """Of each artifact what is known at a batch size, and under None all that is known of it."""
    facts: dict[str, Facts] = {}
    for row in rows:
        known = {key: value for key, value in row.items() if value is not None}
        of_artifact = facts.setdefault(row["artifact"], {})
        for batch in {None, row["batch_size"]}:
            of_artifact.setdefault(batch, {}).update(known)
    return facts


def _quality(rows: list[dict[str, Any]], stem: str, suffixes: tuple[str, ...]) -> list[str]:
    """Top-1 with its interval, the difference to FP32 on the same split, the size."""
    names = [stem + suffix for suffix in suffixes]
    measured = [row for row in rows if row["artifact"] in names and row["top1_percent"] is not None]
    row = min(measured, key=lambda each: each["split"] != "test")
    (origin,) = {
        each["top1_percent"]
        for each in rows
        if each["artifact"] == f"{stem}.pth"
        and each["split"] == row["split"]
        and each["top1_percent"] is not None
    }
    half = "" if row["split"] == "test" else f", {row['split']}"
    interval = f"({row['top1_percent_low']:.2f}-{row['top1_percent_high']:.2f}{half})"
    difference = row["top1_percent"] - origin
    return [f"{row['top1_percent']:.2f} {interval}", f"{difference:+.2f}", f"{row['size_bytes'] / 1024:.0f}"]


def _latency(rows: list[dict[str, Any]], artifact: str, batch: int) -> str:
    row, *_ = [  # an artifact judged by two splits has two rows of the same speed
        row
        for row in rows
        if row["artifact"] == artifact and row["batch_size"] == batch and row["latency_p50_ms"] is not None
    ]
    return with_spread(row, "latency_p50_ms")
