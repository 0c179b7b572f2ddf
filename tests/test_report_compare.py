"""Deltas against a baseline, like with like."""

from __future__ import annotations

import pytest
import reporting

from rcompress.artifacts.records import Record
from rcompress.errors import RcompressError
from rcompress.report.compare import baseline_of, with_deltas
from rcompress.report.frame import Row, frame_from_records


def _rows(records: list[Record], baseline: str | None = None) -> list[Row]:
    return with_deltas(frame_from_records(records), baseline).to_dicts()


def test_every_batch_size_is_compared_with_its_own() -> None:
    rows = {(row["artifact"], row["batch_size"]): row for row in _rows(reporting.family())}
    assert rows["b.onnx", 1]["speedup"] == pytest.approx(4.0)
    assert rows["b.onnx", 64]["speedup"] == pytest.approx(4.0)
    assert rows["b.onnx", 1]["compression_ratio"] == pytest.approx(4.0)
    assert rows["b.onnx", 1]["top1_difference_points"] == pytest.approx(-1.0)
    assert rows["a.pth", 1]["speedup"] == 1.0
    assert rows["a.pth", 1]["top1_difference_points"] == 0.0


def test_the_baseline_can_be_named() -> None:
    rows = _rows(reporting.family(), "b.onnx")
    assert rows[0]["compression_ratio"] == pytest.approx(0.25)
    assert baseline_of(frame_from_records(reporting.family()), None) == ("a.pth", "torch")


def test_an_unknown_baseline_lists_the_artifacts() -> None:
    with pytest.raises(RcompressError, match=r"c\.pth.*a\.pth, b\.onnx"):
        _rows(reporting.family(), "c.pth")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (reporting.benched("b.pth", 1.0, threads=2), "threads 2, 1 for a.pth"),
        (reporting.benched("b.pth", 1.0, batch_size=8), "batch size 8, 1 for a.pth"),
        (
            reporting.benched("b.pth", 1.0, cpu="Other CPU"),
            "machine Other CPU (AVX2), Test CPU (AVX2) for a.pth",
        ),
    ],
    ids=["threads", "batch", "machine"],
)
def test_unlike_speeds_are_not_compared(other: Record, reason: str) -> None:
    row = _rows([reporting.benched("a.pth", 2.0), other])[1]
    assert row["speedup"] is None
    assert row["speedup_reason"] == reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            reporting.evaluated("b.pth", 80.0, split="test-b", images=500),
            "split test-b, test for a.pth; images 500, 1000",
        ),
        (reporting.evaluated("b.pth", 80.0, images=500), "images 500, 1000 for a.pth"),
    ],
    ids=["split", "images"],
)
def test_unlike_accuracies_are_not_compared(other: Record, reason: str) -> None:
    row = _rows([reporting.evaluated("a.pth", 90.0), other])[1]
    assert row["top1_difference_points"] is None
    assert row["top1_difference_reason"].startswith(reason)


def test_what_the_baseline_lacks_is_said() -> None:
    row = _rows([reporting.benched("a.pth", 2.0), reporting.evaluated("b.pth", 90.0)])[1]
    assert row["top1_difference_reason"] == "not measured for a.pth"
    assert row["speedup_reason"] is None


def test_accuracy_measured_in_another_backend_than_the_times_is_compared() -> None:
    evaluated = [
        reporting.evaluated(name, top1, "onnxruntime") for name, top1 in (("a.onnx", 91.0), ("b.onnx", 90.0))
    ]
    timed = [reporting.benched(name, 1.0, backend="openvino") for name in ("a.onnx", "b.onnx")]
    rows = {(row["artifact"], row["backend"]): row for row in _rows([*evaluated, *timed])}
    assert rows["b.onnx", "onnxruntime"]["top1_difference_points"] == -1.0
    assert rows["a.onnx", "onnxruntime"]["top1_difference_points"] == 0.0
    assert not any(row["top1_difference_reason"] for row in rows.values())
    more = _rows([*evaluated, *timed, reporting.evaluated("a.onnx", 80.0, "openvino")])
    assert [row["top1_difference_points"] for row in more if row["artifact"] == "b.onnx"] == [None, 10.0]


def test_empty_files_have_no_ratio() -> None:
    rows = _rows([reporting.benched("a.pth", 2.0, 0), reporting.benched("b.pth", 2.0, 4)])
    assert [row["compression_ratio"] for row in rows] == [None, None]


def test_deltas_are_computed_even_where_a_record_brings_its_own() -> None:
    brought = reporting.record("eval", "a.pth", {"speedup": 99.0, "top1_difference_points": 9.0}, {})
    rows = _rows([brought, reporting.benched("a.pth", 2.0)])
    assert [row["speedup"] for row in rows if row["latency_p50_ms"]] == [1.0]


def test_times_of_separate_runs_make_no_ratio() -> None:
    base, other = reporting.benched("a.pth", 2.0), reporting.benched("b.pth", 1.0)
    for record, run in ((base, "one"), (other, "two")):
        record.context["bench_run"] = run
    row = _rows([base, other])[1]
    assert row["speedup"] is None
    assert row["speedup_reason"].startswith("not timed in turns with a.pth")
    other.context["bench_run"] = "one"
    assert _rows([base, other])[1]["speedup"] == pytest.approx(2.0)


def test_of_several_runs_each_row_is_held_against_the_baseline_of_its_own() -> None:
    runs = {"one": (("a.pth", 2.0), ("b.pth", 1.0)), "two": (("a.pth", 3.0), ("c.pth", 1.0))}
    records = []
    for run, timed in runs.items():
        for name, latency in timed:
            records.append(reporting.benched(name, latency))
            records[-1].context["bench_run"] = run
    rows = {row["artifact"]: row for row in _rows(records)}
    assert len(rows) == 3
    assert (rows["b.pth"]["speedup"], rows["c.pth"]["speedup"]) == (2.0, 3.0)
    assert rows["a.pth"]["latency_p50_ms"] == 3.0
