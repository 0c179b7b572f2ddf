"""Accuracy over the time and the memory of a training."""

from __future__ import annotations

from typing import Any

import pytest
import reporting

from rcompress.artifacts.records import Record
from rcompress.report.build import build_report
from rcompress.report.training_cost import cost_plots

MIB = 2**20


def step(
    command: str, seconds: Any = None, held: Any = None, key: str = "", **machine: str
) -> dict[str, Any]:
    metrics = {"train_seconds": seconds, f"train_peak_{key}memory_bytes": held}
    return {
        "command": command,
        "options": {},
        "metrics": metrics,
        "machine": {**reporting.MACHINE, **machine},
    }


def tuned(name: str, top1: float, *steps: dict[str, Any]) -> Record:
    return reporting.evaluated(name, top1, lineage=list(steps))


def points(records: list[Record]) -> list[list[tuple[str, float]]]:
    """Of time and of memory, each network with its figure as it is drawn."""
    plots = cost_plots(build_report(records))
    assert [plot.name for plot in plots] == ["accuracy-training-time", "accuracy-training-memory"]
    return [sorted((p["artifact"], p["x"]) for p in reporting.drawn(plot.chart)) for plot in plots]


def test_each_network_by_the_last_step_that_trained() -> None:
    trained = step("train", 60.0, 900 * MIB)
    records = [
        tuned("a.pth", 91.0, trained),
        tuned("b.pth", 89.0, trained, step("factorize", 20.0, 700 * MIB)),
        tuned("b.onnx", 88.0, trained, step("factorize", 20.0, 700 * MIB), {"command": "export"}),
        tuned("c.pth", 70.0, {"command": "import", "metrics": {}}),
    ]
    time, memory = points(records)
    assert time == [("a.pth", 60), ("b.onnx", 20), ("b.pth", 20)]
    assert memory == [("a.pth", 900), ("b.onnx", 700), ("b.pth", 700)]
    plot = cost_plots(build_report(records))[0]
    assert plot.subtitle[0] == "digits, test split, 1,000 images; trained on Test CPU (AVX2)"
    assert plot.png.startswith(b"\x89PNG")


def test_other_machines_and_gpus_stand_apart() -> None:
    mine = [tuned(f"{n}.pth", 90.0 + n, step("train", 10.0 * n, n * MIB)) for n in (1, 2, 3)]
    other = tuned("o.pth", 90.0, step("train", 1.0, MIB, cpu="Faster CPU"))
    graphic = tuned("g.pth", 90.0, step("train", 1.0, MIB, "gpu_"))
    assert [[name for name, _ in plot] for plot in points([*mine, other, graphic])] == [
        ["1.pth", "2.pth", "3.pth"]
    ] * 2
    gpus = [tuned(f"{n}.pth", 90.0, step("train", 10.0 * n, n * MIB, "gpu_")) for n in (1, 2)]
    assert "trained on the GPU beside Test CPU" in cost_plots(build_report(gpus))[0].subtitle[0]


@pytest.mark.parametrize("odd", ["long", True, -1.0, float("nan"), [1], 2**70])
def test_odd_figures_are_no_points(odd: Any) -> None:
    records = [tuned(f"{n}.pth", 90.0, step("train", odd if n == 1 else 3.0, n * MIB)) for n in (1, 2)]
    assert cost_plots(build_report(records)) == []


def test_one_training_is_no_plot() -> None:
    trained = step("train", 60.0, 900 * MIB)
    assert cost_plots(build_report([tuned("a.pth", 91.0, trained), tuned("b.onnx", 90.0, trained)])) == []
