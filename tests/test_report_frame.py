"""Records merged into one row per artifact and condition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import reporting

from rcompress.errors import RcompressError
from rcompress.report.frame import ACCURACY_KEYS, SPEED_KEYS, frame_from_records, repeated


def test_accuracy_and_speed_of_one_artifact_share_a_row() -> None:
    frame = frame_from_records(reporting.family())
    rows = {(row["artifact"], row["batch_size"]): row for row in frame.to_dicts()}
    assert len(rows) == 4
    assert rows["b.onnx", 64]["top1_percent"] == 90.0
    assert rows["b.onnx", 64]["latency_p50_ms"] == 16.0
    assert rows["b.onnx", 64]["size_bytes"] == 2**18
    assert rows["b.onnx", 64]["precision"] == "fp32"


def test_the_origin_comes_before_what_was_made_of_it() -> None:
    frame = frame_from_records(reporting.family())
    assert frame["artifact"].to_list() == ["a.pth", "a.pth", "b.onnx", "b.onnx"]
    assert (
        frame["lineage"][2] == "train --arch resnet20 --dataset digits --epochs 3 → prune a.pth --ratio 0.5"
    )


def test_what_nobody_typed_is_told_by_its_options() -> None:
    step = {"command": "train", "options": {"epochs": 3, "nesterov": True, "resume": False, "init": None}}
    assert frame_from_records([reporting.evaluated("a.pth", 90.0, lineage=[step])])["lineage"].to_list() == [
        "train --epochs 3 --nesterov"
    ]


def test_accuracy_stays_with_its_backend() -> None:
    records = [
        reporting.evaluated("a.onnx", 90.0, "openvino"),
        reporting.benched("a.onnx", 1.0, backend="torch"),
    ]
    rows = frame_from_records(records).to_dicts()
    assert [(row["backend"], row["top1_percent"], row["latency_p50_ms"]) for row in rows] == [
        ("torch", None, 1.0),
        ("openvino", 90.0, None),
    ]
    assert all(row["size_bytes"] == 2**20 for row in rows)


def test_two_splits_are_two_rows() -> None:
    records = [reporting.evaluated("a.pth", 90.0), reporting.evaluated("a.pth", 89.0, split="test-b")]
    assert frame_from_records(records)["split"].to_list() == ["test", "test-b"]


def test_what_training_saw_counts_only_without_an_evaluation() -> None:
    context = {"dataset": "digits", "split": "validation"}
    trained = reporting.record("train", "a.pth", {"top1_percent": 99.0, "epoch_seconds": 3.0}, context)
    assert frame_from_records([trained])["top1_percent"].to_list() == [99.0]
    both = frame_from_records([trained, reporting.evaluated("a.pth", 90.0)])
    assert both["top1_percent"].to_list() == [90.0]
    assert both["epoch_seconds"].to_list() == [3.0]


def test_speed_comes_from_bench_alone() -> None:
    trained = reporting.record("train", "a.pth", {"throughput_images_per_s": 9.0}, {})
    assert frame_from_records([trained])["throughput_images_per_s"].to_list() == [None]


def test_one_name_for_two_files_is_told_apart() -> None:
    records = [
        reporting.evaluated("a.pth", 1.0, sha256="1" * 64),
        reporting.evaluated("a.pth", 2.0, sha256="2" * 64),
    ]
    assert frame_from_records(records)["artifact"].to_list() == ["a.pth (1111111)", "a.pth (2222222)"]


def test_the_last_of_two_equal_measurements_counts_and_is_named() -> None:
    records = [
        reporting.benched("a.pth", 1.0),
        reporting.benched("a.pth", 2.0),
        reporting.evaluated("a.pth", 90.0),
    ]
    assert frame_from_records(records)["latency_p50_ms"].to_list() == [2.0]
    assert repeated(records, "bench", SPEED_KEYS) == [reporting.sha("a.pth")]
    assert repeated(records[1:], "bench", SPEED_KEYS) == repeated(records, "eval", ACCURACY_KEYS) == []


def test_control_and_direction_characters_do_not_get_through() -> None:
    frame = frame_from_records([reporting.evaluated("a\x1b[31m\u202e\n.pth", 90.0)])
    assert frame["artifact"].to_list() == ["a\ufffd[31m\ufffd\ufffd.pth"]


@pytest.mark.parametrize(
    ("value", "said"),
    [("90", "not a number"), (True, "not a number"), (10**30, "out of range"), (1e300, "out of range")],
    ids=repr,
)
def test_a_metric_that_is_no_figure_is_refused(value: object, said: str) -> None:
    with pytest.raises(RcompressError, match=said):
        frame_from_records([reporting.record("eval", "a.pth", {"size_bytes": value}, {})])


def test_a_loss_that_diverged_is_no_figure() -> None:
    frame = frame_from_records(
        [reporting.record("eval", "a.pth", {"top1_percent": 10.0, "loss": math.nan}, {})]
    )
    assert frame["loss"].to_list() == [None]


@pytest.mark.parametrize("name", ["artifact", "lineage", "threads", "backend"])
def test_a_metric_cannot_pose_as_a_column(name: str) -> None:
    with pytest.raises(RcompressError, match=f"a metric called {name}"):
        frame_from_records([reporting.record("eval", "a.pth", {name: 1.0}, {})])


def test_what_batchnorm_gave_back_comes_from_the_history() -> None:
    figures = {"top1_percent_before_reestimation": 30.0, "top1_percent_after_reestimation": 80.5}
    steps = [{"command": "prune", "metrics": figures}, {"command": "export", "metrics": {}}]
    told = reporting.evaluated("a.pth", 90.0)
    (row,) = frame_from_records([replace(told, lineage=steps)]).to_dicts()
    assert {name: row[name] for name in figures} == figures
    broken = [{"command": "prune", "metrics": {**figures, "top1_percent_before_reestimation": "1e9"}}, {}]
    (row,) = frame_from_records([replace(told, lineage=broken)]).to_dicts()
    assert not set(figures) & set(row)
