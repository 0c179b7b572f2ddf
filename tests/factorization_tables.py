"""README.md's table of low-rank layers, from the records under ``artifacts/reference/factorization``."""

from __future__ import annotations

from rcompress.report.build import build_report, read_sources
from rcompress.report.text import with_spread
from tests.result_tables import RECORDS, Facts, facts_of, table

STEMS = {"ResNet-18": "r18", "ResNet-20": "r20"}
SHARES = (35, 50, 65, 80)
WAYS = {
    "": "",
    **{
        f"{scheme}, {share} % fewer MACs": f"-{scheme}-less{share}"
        for scheme in ("auto", "spatial", "channel")
        for share in SHARES
    },
    "Tucker-2, 50 % fewer MACs": "-tucker-less50",
    "ranks by EVBMF": "-evbmf",
}
HEADS = [
    "",
    "parameters (k)",
    "MACs (M)",
    "top-1 before training (%)",
    "after (%)",
    "difference",
    "ms, batch 1",
    "faster",
    "ms, batch 64",
    "faster",
]
BATCHES = (1, 64)


def factorization() -> str:
    """Each scheme and rank: what it costs and what training gives back, as Markdown."""
    records, _, _ = read_sources([RECORDS / "factorization"])
    report = build_report(records)
    facts = facts_of(report.frame.to_dicts())
    lines = [
        _line(facts, f"{name}{', ' if way else ''}{way}", stem, suffix)
        for name, stem in STEMS.items()
        for way, suffix in WAYS.items()
        if f"{stem}{suffix}.onnx" in facts
    ]
    machines = "; ".join(report.machines)
    return f"{table(HEADS, lines)}\n\nSpeed on {machines}: ONNX Runtime in FP32, 1 thread, p50 per call."


def _line(facts: dict[str, Facts], name: str, stem: str, suffix: str) -> list[str]:
    before, after, origin = (
        facts.get(f"{stem}{way}.pth", {}).get(None, {}) for way in (suffix, f"{suffix}-ft", "")
    )
    counted = before or after or origin
    timed, whole = facts[f"{stem}{suffix}.onnx"], facts[f"{stem}.onnx"]
    speeds = [
        cell
        for batch in BATCHES
        for cell in (
            with_spread(timed[batch], "latency_p50_ms"),
            f"{whole[batch]['latency_p50_ms'] / timed[batch]['latency_p50_ms']:.2f}x",
        )
    ]
    return [
        name,
        f"{counted['parameters'] / 1e3:,.1f}",
        f"{counted['macs'] / 1e6:.1f}",
        with_spread(before, "top1_percent", decimals=2),
        with_spread(after, "top1_percent", decimals=2),
        f"{after['top1_percent'] - origin['top1_percent']:+.2f}" if after else "",
        *speeds,
    ]
