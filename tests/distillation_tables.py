"""README.md's table of students with and without a teacher, from ``artifacts/reference/distillation``."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

from rcompress.report.build import build_report, read_sources
from rcompress.report.text import signed, with_spread
from tests.result_tables import RECORDS, table

LOSSES = {
    "no teacher": "alone",
    "logits": "logits",
    "hints": "hints",
    "attention": "attention",
    "relational": "relational",
    "logits and attention": "logits-attention",
}
HEADS = ["taught by", "seeds", "top-1 (%)", "gain over the same seeds alone", "more than chance"]
Scores = dict[int, float]


def distillation() -> str:
    """Mean and spread of each loss over its seeds, beside the students without a teacher, as Markdown."""
    records, _, _ = read_sources([RECORDS / "distillation"])
    rows = build_report(records).frame.to_dicts()
    students = {shown: _students(rows, loss) for shown, loss in LOSSES.items()}
    alone = students["no teacher"]
    (teacher,) = (row for row in rows if row["artifact"] == "r32.pth")
    lines = [_line(shown, scores, alone) for shown, scores in students.items() if scores]
    top1 = with_spread(teacher, "top1_percent", decimals=2)
    return table(HEADS, [["*the teacher, ResNet-32*", "", top1, "", ""], *lines])


def _students(rows: list[dict[str, Any]], loss: str) -> Scores:
    """Top-1 (%) by seed."""
    named = ((re.fullmatch(rf"student-{loss}-s(\d+)\.pth", row["artifact"]), row) for row in rows)
    return {int(found[1]): row["top1_percent"] for found, row in named if found}


def _line(shown: str, scores: Scores, alone: Scores) -> list[str]:
    gains = [value - alone[seed] for seed, value in scores.items()]
    chance = max(alone.values()) - min(alone.values())
    taught = scores is not alone
    return [
        shown,
        ", ".join(map(str, scores)),
        _spread(list(scores.values()), "{:.2f}".format),
        _spread(gains, signed) if taught else "",
        ("yes" if mean(gains) > chance else "no") if taught else "",
    ]


def _spread(values: list[float], shown: Callable[[float], str]) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{shown(mean(values))}{spread}"
