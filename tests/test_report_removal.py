"""Accuracy over how much was removed: lines of one method, from their root."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import reporting

from rcompress.artifacts.records import Record
from rcompress.methods.placement import LayerBits
from rcompress.methods.post_training import quantization_record
from rcompress.methods.quantize import QuantizationReport, QuantizeOptions
from rcompress.methods.reconstruction import ReconstructionOptions
from rcompress.methods.sparse_training import SparsifyRequest
from rcompress.methods.sparsify import Unstructured
from rcompress.report.ancestry import descent
from rcompress.report.build import build_report
from rcompress.report.curves import PALETTE, Series, curves
from rcompress.report.removal import removal_plots
from rcompress.search.targets import Target

ROOT = "a.pth"


def _step(command: str, parent: str, **options: Any) -> dict[str, Any]:
    return {
        "command": command,
        "options": options,
        "parent_name": parent,
        "parent_sha256": reporting.sha(parent),
    }


def _record(name: str, top1: float, macs: int, steps: list[dict[str, Any]], backend: str = "torch") -> Record:
    found = reporting.evaluated(name, top1, backend, lineage=[reporting.TRAIN, *steps])
    found.metrics.update(macs=macs, parameters=macs // 10, nonzero_parameters=macs // 10)
    return found


def _pruned(ratio: float, importance: str = "l2") -> Record:
    step = _step("prune", ROOT, ratio=ratio, importance=importance)
    name = f"{importance}-{round(100 * ratio)}.pth"
    return _record(name, 90 - 10 * ratio, round(1000 * (1 - ratio)), [step])


def _quantization(mending: ReconstructionOptions = ReconstructionOptions(), **changed: Any) -> dict[str, Any]:
    report = QuantizationReport(21, 21, 1, 1, activations=20, images=64, fixed_batch=None)
    return quantization_record(QuantizeOptions(**changed), report, None, mending)


def _family() -> list[Record]:
    return [_record(ROOT, 91.0, 1000, []), *(_pruned(r) for r in (0.6, 0.3)), _pruned(0.5, "taylor")]


def test_a_method_is_one_line_from_its_root() -> None:
    macs, weights = removal_plots(build_report(_family()))
    assert (macs.name, weights.name) == ("accuracy-macs-removed", "accuracy-weights-removed")
    points = reporting.drawn(macs.chart)
    lines = {point["series"]: [] for point in points}
    for point in points:
        lines[point["series"]].append((round(point["x"], 3), round(point["y"], 3)))
    assert lines["prune l2"] == [(0.0, 91.0), (30.0, 87.0), (60.0, 84.0)]
    assert lines["prune taylor"] == [(0.0, 91.0), (50.0, 85.0)]
    assert macs.subtitle[0] == "digits, test split, 1,000 images"
    assert list(macs.legend) == ["prune l2", "prune taylor"]


def test_other_steps_and_engines_are_other_lines() -> None:
    step = _step("prune", ROOT, ratio=0.3, importance="l2")
    chain = [step, _step("export", "l2-30.pth"), _step("quantize", "l2-30.onnx", **_quantization())]
    more = [_record(f"q{macs}.onnx", 80.0, macs, chain, "onnxruntime") for macs in (700, 600)]
    [macs, _] = removal_plots(build_report([*_family(), *more]))
    labels = {point["series"] for point in reporting.drawn(macs.chart)}
    assert labels == {"prune l2; torch", "prune taylor; torch", "prune l2; quantize W8A8 minmax; onnxruntime"}


def test_of_many_methods_the_most_measured_and_most_accurate_are_drawn() -> None:
    others = [_pruned(ratio, f"way{number}") for number in range(9) for ratio in (0.3, 0.5)]
    for record in others:
        record.metrics["top1_percent"] += int(record.artifact[3])
    [macs, _] = removal_plots(build_report([*_family(), *others]))
    assert "8 of 11 methods" in macs.subtitle[2]
    assert set(macs.legend) == {f"prune way{number}" for number in range(1, 9)}


def test_one_strength_without_its_root_is_no_line() -> None:
    assert removal_plots(build_report([_pruned(0.5)])) == []
    assert removal_plots(build_report([_record(ROOT, 91.0, 1000, [])])) == []


def test_accuracy_on_other_data_is_not_on_the_same_line() -> None:
    odd = _pruned(0.8)
    odd.context["dataset"] = "other"
    [macs, _] = removal_plots(build_report([*_family(), odd]))
    assert 80.0 not in [point["x"] for point in reporting.drawn(macs.chart)]


def test_methods_are_told_without_their_amounts() -> None:
    steps = [_step("prune", ROOT, ratio=0.6, importance="l2", finetune={"epochs": 3}), _step("export", "b")]
    told = descent(reporting.sha("c"), [reporting.TRAIN, *steps])
    assert told.root == reporting.sha(ROOT)
    assert told.removed_by == ("prune l2 fine-tuned",)
    assert told.otherwise == ()
    assert told.method == "prune 0.6 l2 fine-tuned"
    assert descent("x", []).root == "x"


@pytest.mark.parametrize(
    ("options", "method"),
    [
        (_quantization(), "quantize W8A8 minmax"),
        (_quantization(bits=LayerBits(4), method="mse", per_channel=False), "quantize W4A8 mse per-tensor"),
        (_quantization(bits=LayerBits(4, activations=False), group=32), "quantize W4A32 groups of 32"),
        (
            _quantization(bits=LayerBits(skip=("fc",)), profile="tensorrt"),
            "quantize W8A8 minmax tensorrt mixed",
        ),
        (_quantization(ReconstructionOptions(100)), "quantize W8A8 minmax adaround"),
        ({**_quantization(equalize=True), "qat": {"epochs": 3}}, "quantize W8A8 minmax equalized qat"),
        ({"precision": "fp16"}, "quantize fp16"),
        ({"quantization": "odd"}, "quantize"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_quantization_is_told_by_what_sets_it_apart(options: dict[str, Any], method: str) -> None:
    assert descent("q", [reporting.TRAIN, _step("quantize", ROOT, **options)]).method == method


@pytest.mark.parametrize(
    ("command", "options", "method"),
    [
        ("prune", {"target": asdict(Target("macs", 0.7, relative=True))}, "prune 0.7x macs"),
        (
            "prune",
            {"target": asdict(Target("drop_points", 1.0)), "importance": "l2"},
            "prune 1.0 drop_points l2",
        ),
        ("prune", {"ratio": 0.5, "round_to": 4}, "prune 0.5 to multiples of 4"),
        ("prune", {"ratio": 0.5, "round_to": 1}, "prune 0.5 to any width"),
        ("prune", {"ratio": 0.5, "round_to": 16, "steps": 2, "step": 2}, "prune 0.5 in 2 steps"),
        ("sparsify", SparsifyRequest(Unstructured(0.8)).options(), "sparsify 0.8 unstructured global"),
        (
            "sparsify",
            SparsifyRequest(Unstructured(0.8), "cubic").options(),
            "sparsify 0.8 unstructured global cubic",
        ),
    ],
    ids=["share", "points", "rounded", "any width", "steps", "one-shot", "cubic"],
)
def test_targets_and_schedules_are_told(command: str, options: dict[str, Any], method: str) -> None:
    assert descent("p", [reporting.TRAIN, _step(command, ROOT, **options)]).method == method


def test_more_lines_than_colours_are_refused() -> None:
    line = [{"x": 0.0, "y": 0.0}]
    with pytest.raises(ValueError, match="9 series"):
        curves([Series(str(n), line) for n in range(len(PALETTE) + 1)], "x", "y")
