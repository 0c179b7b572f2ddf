"""The table for people: terminal and Markdown."""

from __future__ import annotations

import reporting

from rcompress.artifacts.records import Record
from rcompress.report.build import build_report
from rcompress.report.markdown import markdown
from rcompress.report.tables import Table, halves, table_of


def _table(records: list[Record]) -> Table:
    return table_of(build_report(records))


def _column(table: Table, header: str) -> list[str]:
    index = [column.header for column in table.columns].index(header)
    return [cells[index] for cells in table.cells]


def test_figures_units_and_deltas() -> None:
    table = _table(reporting.family())
    assert _column(table, "artifact") == ["a.pth", "a.pth", "b.onnx", "b.onnx"]
    assert _column(table, "size (MiB)") == ["1.00", "1.00", "0.25", "0.25"]
    assert _column(table, "compression") == ["1.00x", "1.00x", "4.00x", "4.00x"]
    assert _column(table, "top-1 (%)")[2] == "90.00 (89.50-90.40)"
    assert _column(table, "difference (points)") == ["0.00", "0.00", "-1.00", "-1.00"]
    assert _column(table, "latency p50 (ms)")[2] == "0.500 ± 0.005"
    assert _column(table, "speed-up")[2] == "4.00x"


def test_shared_conditions_are_said_once_and_differing_ones_are_columns() -> None:
    table = _table(reporting.family())
    assert table.caption == (
        "Baseline: a.pth; accuracy on digits, test split, 1,000 images; speed on Test CPU (AVX2), 1 thread."
    )
    assert _column(table, "batch") == ["1", "64", "1", "64"]
    headers = [column.header for column in table.columns]
    assert not {"threads", "split", "device", "memory (MiB)", "energy (mJ/image)", "non-zero (k)"} & set(
        headers
    )


def test_small_files_are_told_in_kib() -> None:
    table = _table([reporting.benched("a.pth", 1.0, 20480), reporting.benched("b.pth", 1.0, 10 * 2**20)])
    assert _column(table, "size (KiB)") == ["20.00", "10,240.00"]


def test_what_cannot_be_compared_is_a_footnote() -> None:
    table = _table([reporting.benched("a.pth", 2.0), reporting.benched("b.pth", 1.0, threads=2)])
    assert _column(table, "speed-up") == ["1.00x", "[1]"]
    assert table.footnotes[0] == "[1] no speed-up: threads 2, 1 for a.pth"


def test_notes_name_their_artifacts_unless_they_are_about_all() -> None:
    records = [
        reporting.evaluated("a.pth", 90.0, notes=["for all"]),
        reporting.evaluated("b.pth", 80.0, notes=["for all", "for b"]),
    ]
    assert build_report(records).notes == ["for all", "b.pth: for b"]


def test_a_note_names_the_file_it_is_about_as_the_table_does() -> None:
    records = [
        reporting.evaluated("a.pth", 90.0, sha256="1" * 64, notes=["odd"]),
        reporting.evaluated("a.pth", 80.0, sha256="2" * 64),
    ]
    assert build_report(records).notes == ["a.pth (1111111): odd"]


def test_an_accuracy_that_another_one_hides_is_said() -> None:
    records = [
        reporting.evaluated("a.onnx", 90.0, cpu="One CPU"),
        reporting.evaluated("a.onnx", 91.0, cpu="Other CPU"),
        reporting.benched("a.onnx", 1.0, cpu="One CPU"),
    ]
    report = build_report(records)
    assert report.frame["top1_percent"].to_list() == [91.0]
    [note] = report.notes
    assert note.startswith("a.onnx: accuracy measured more than once on the same images")
    assert build_report(records[1:]).notes == []


def test_the_caption_tells_the_baseline_s_backend_where_it_ran_in_several() -> None:
    backends = ("onnxruntime", "openvino")
    table = _table([reporting.benched("a.onnx", 1.0, backend=name) for name in backends])
    assert table.caption.startswith("Baseline: a.onnx (onnxruntime); ")


def test_markdown_is_a_table_and_cannot_be_broken_by_a_name() -> None:
    text = markdown(
        build_report([reporting.evaluated("a|b<img>`*.pth", 90.0)]), [("Latency", "r-latency.png")]
    )
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert all(line.replace("\\|", "").count("|") == lines[1].count("|") for line in lines)
    assert "a\\|b\\<img\\>\\`\\*.pth" in lines[2]
    assert "![Latency](r-latency.png)" in text


def test_halves_drop_empty_and_repeated_lines() -> None:
    quality, speed = halves(_table([*reporting.family(), reporting.evaluated("c.pth", 80.0)]))
    assert _column(quality, "artifact") == ["a.pth", "c.pth", "b.onnx"]
    assert _column(speed, "artifact") == ["a.pth", "a.pth", "b.onnx", "b.onnx"]
    assert _column(speed, "batch") == ["1", "64", "1", "64"]
    assert len(halves(_table([reporting.evaluated("c.pth", 80.0)]))) == 1
