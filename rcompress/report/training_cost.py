"""Accuracy over what the training that made a network took: time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rcompress.report.build import Report
from rcompress.report.charts import scatter
from rcompress.report.frame import LARGEST, Row
from rcompress.report.lineage import Step, mapping
from rcompress.report.plots import FRONT, Plot, smallest
from rcompress.report.points import ACCURACY, Measure, comparable
from rcompress.report.text import in_words, printable

TRAINED_ON = ("trained_on",)
TIME = Measure("train_seconds", "training time (s)", 1, False, TRAINED_ON, 3, "rcompress train")
MEMORY = Measure(
    "train_peak_memory_bytes", "peak memory of training (MiB)", 2**20, False, TRAINED_ON, 4, "rcompress train"
)
GPU_MEMORY = "train_peak_gpu_memory_bytes"  # in its place, where a GPU trained
PLOTS = (
    ("accuracy-training-time", "Accuracy over training time", TIME),
    ("accuracy-training-memory", "Accuracy over memory of training", MEMORY),
)
READING = "Of each network's last training alone, on one kind of machine."


def cost_plots(report: Report) -> list[Plot]:
    """One plot for time and one for memory, where two networks at least that were trained alike have both figures."""
    rows = [{**row, **_training(report.histories.get(row["sha256"], []))} for row in report.frame.to_dicts()]
    plots = []
    for name, title, measure in PLOTS:
        points, conditions = comparable(rows, (ACCURACY, measure), smallest)
        if len({point[measure.key] for point in points}) > 1:
            trained_on = conditions.pop("trained_on")
            subtitle = [f"{in_words(conditions)}; trained on {trained_on}", f"{READING} {FRONT}"]
            plots.append(Plot(name, title, subtitle, scatter(points, measure, ACCURACY)))
    return plots


def _training(lineage: Sequence[Step]) -> Row:
    """What the last step that trained took, and where; None where no step says so."""
    found: Row = dict.fromkeys((TIME.key, MEMORY.key, *TRAINED_ON))
    for step in lineage:
        metrics = mapping(step.get("metrics"))
        seconds, memory, graphic = (metrics.get(key) for key in (TIME.key, MEMORY.key, GPU_MEMORY))
        held = memory if graphic is None else graphic
        if _is_amount(seconds) and _is_amount(held):
            trained_on = _place(mapping(step.get("machine")), graphic is not None)
            found = {TIME.key: seconds, MEMORY.key: held, "trained_on": trained_on}
    return found


def _place(machine: Mapping[str, Any], gpu: bool) -> str:
    parts = [str(printable(machine.get(key, "?"))) for key in ("cpu", "instruction_set")]
    return f"{'the GPU beside ' if gpu else ''}{parts[0]} ({parts[1]})"


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST
