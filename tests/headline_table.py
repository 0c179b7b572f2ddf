"""README.md's first table: a ResNet-18 made small and fast, beside the study that it is measured by."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from rcompress.report.build import build_report, read_sources
from rcompress.report.lineage import command_texts
from rcompress.report.text import MIB, with_spread
from tests.result_tables import RECORDS, Facts, facts_of, table

PUBLISHED = RECORDS.parent / "tables" / "published" / "resnet18.csv"
THEIRS = {"published: FP32": "r18-fp32", "published: 60 % pruned, INT8": "r18-pruned60-int8"}
OURS = {
    "FP32, PyTorch": "r18.pth",
    "FP32, ONNX Runtime": "r18.onnx",
    "INT8, OpenVINO": "r18-w8a8-minmax.xml",
    "60 % pruned, ONNX Runtime": "r18-pruned60-distilled.onnx",
    "60 % pruned, INT8, ONNX Runtime": "r18-pruned60-distilled-w8a8-percentile.onnx",
    "60 % pruned, INT8, OpenVINO": "r18-pruned60-distilled-w8a8-percentile.xml",
}
HEADS = [
    "ResNet-18, CIFAR-10",
    "top-1 (%)",
    "difference",
    "MiB",
    "smaller",
    "ms, batch 1",
    "faster",
    "ms, batch 64",
]


def headline() -> str:
    """Theirs and ours, each against its own FP32 network, and the commands that made ours, as Markdown."""
    records, _, _ = read_sources([RECORDS / "headline"])
    report = build_report(records, "r18.pth")
    facts = facts_of(report.frame.to_dicts())
    base = facts["r18.pth"]
    ours = [_ours(name, facts[artifact], base) for name, artifact in OURS.items()]
    machines = "; ".join(report.machines)
    told = f"Ours on {machines}: 1 thread, p50; their milliseconds are a GPU's and stand in their study."
    commands = "\n".join(f"$ rcompress {text}" for text in _commands(report.histories, facts))
    return "\n\n".join([table(HEADS, [*_theirs(), *ours]), told, f"```\n{commands}\n```", _choice()])


def _choice() -> str:
    """How the small network was quantized, and what that was chosen from."""
    records, _, _ = read_sources([RECORDS / "headline-validation"])
    assert {record.context["split"] for record in records} == {"validation"}
    found = {record.artifact: record.metrics["top1_percent"] for record in records}
    ranked = sorted(found, key=lambda name: -found[name])
    assert ranked[0] == OURS["60 % pruned, INT8, ONNX Runtime"]
    ways = [f"{name.partition('-w8a8-')[2].removesuffix('.onnx')} {found[name]:.2f} %" for name in ranked]
    return (
        f"Of {len(ways)} ways to quantize it, the best on the validation split was taken: {', '.join(ways)}."
    )


def _theirs() -> Iterator[list[str]]:
    with PUBLISHED.open() as stream:
        figures = {line["published_id"].rpartition("/")[2]: line for line in csv.DictReader(stream)}
    base = figures[next(iter(THEIRS.values()))]
    for name, identity in THEIRS.items():
        top1, size = float(figures[identity]["top1_percent"]), int(figures[identity]["size_bytes"])
        yield [
            name,
            f"{top1:.2f}",
            f"{top1 - float(base['top1_percent']):+.2f}",
            f"{size / MIB:.2f}",
            f"{int(base['size_bytes']) / size:.1f}x",
            *[""] * 3,
        ]


def _ours(name: str, facts: Facts, base: Facts) -> list[str]:
    row, first = facts[None], base[None]
    return [
        name,
        with_spread(row, "top1_percent", decimals=2),
        f"{row['top1_percent'] - first['top1_percent']:+.2f}",
        f"{row['size_bytes'] / MIB:.2f}",
        f"{first['size_bytes'] / row['size_bytes']:.1f}x",
        with_spread(facts[1], "latency_p50_ms"),
        f"{base[1]['latency_p50_ms'] / facts[1]['latency_p50_ms']:.1f}x",
        with_spread(facts[64], "latency_p50_ms"),
    ]


def _commands(histories: dict[str, Any], facts: dict[str, Facts]) -> list[str]:
    """What was typed for the teacher and for the smallest and the fastest, in order, each once."""
    wanted = ("INT8, OpenVINO", "60 % pruned, INT8, ONNX Runtime", "60 % pruned, INT8, OpenVINO")
    hashes = [facts[OURS[name]][None]["sha256"] for name in wanted]
    return list(dict.fromkeys(text for sha256 in hashes for text in command_texts(histories[sha256])))
