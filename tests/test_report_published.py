"""Published figures: read strictly, ours beside them, differences only where model and data are the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import reporting

from rcompress.artifacts.records import Record
from rcompress.errors import RcompressError
from rcompress.report.build import Report, build_report
from rcompress.report.markdown import markdown
from rcompress.report.published import read_published
from rcompress.report.published_table import published_table, unmeasured
from rcompress.report.tables import halves

HEADER = "published_id,method,artifact,top1_percent,size_bytes,latency_ms,differs,needs,command"
SAME = "s/t/same,As published,a.pth,92.5,1048000,3.5,,,rcompress eval a.pth"
OTHER = 's/t/other,"Pruned, tuned",b.*,91,,,another network,,make b'
MISSING = "s/t/missing,FP16,c.plan,93,,1,,a GPU,make c"


def _report(folder: Path, lines: tuple[str, ...], records: list[Record] | None = None) -> Report:
    path = folder / "table.csv"
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return build_report(records or reporting.family(), published=read_published([path]))


def _rows(report: Report) -> list[dict[str, Any]]:
    assert report.published is not None
    return report.published.to_dicts()


def _cells(report: Report, identity: str) -> dict[str, str]:
    table = published_table(report)
    assert table is not None
    [cells, *_] = [cells for cells in table.cells if cells[0] == identity]
    return dict(zip((column.header for column in table.columns), cells, strict=True))


def test_every_published_row_stands_first_and_ours_beside_it(tmp_path: Path) -> None:
    rows = _rows(_report(tmp_path, (MISSING, SAME, OTHER)))
    assert [(row["published_id"], row["artifact"], row["batch_size"]) for row in rows] == [
        ("s/t/missing", None, None),
        ("s/t/same", "a.pth", 1),
        ("s/t/same", "a.pth", 64),
        ("s/t/other", "b.onnx", 1),
        ("s/t/other", "b.onnx", 64),
    ]
    assert rows[1]["published_latency_ms"] == 3.5
    assert rows[1]["latency_p50_ms"] == 2.0


def test_what_stands_beside_nothing_is_kept_below(tmp_path: Path) -> None:
    rows = _rows(_report(tmp_path, (SAME,)))
    assert [(row["published_id"], row["artifact"]) for row in rows[2:]] == [(None, "b.onnx")] * 2
    assert rows[2]["compression_ratio"] == 4.0


def test_a_difference_only_where_model_and_data_are_the_same(tmp_path: Path) -> None:
    same, *_, other = _rows(_report(tmp_path, (SAME, OTHER)))
    assert same["difference_top1_points"] == pytest.approx(91.0 - 92.5)
    assert same["difference_size_bytes"] == 2**20 - 1048000
    assert same["difference_parameters"] is None
    assert other["differs"] == "another network"
    assert other["difference_top1_points"] is None


def test_another_network_or_data_set_is_seen_in_the_records(tmp_path: Path) -> None:
    header = "published_id,method,artifact,arch,dataset,top1_percent,command"
    lines = ("s/t/same,One,a.pth,resnet20,digits,92,make a", "s/t/other,Two,a.pth,resnet18,cifar10,92,make a")
    path = tmp_path / "t.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    same, other = build_report(
        [reporting.evaluated("a.pth", 91.0)], published=read_published([path])
    ).published.to_dicts()
    assert (same["differs"], same["difference_top1_points"]) == (None, -1.0)
    assert (other["differs"], other["difference_top1_points"]) == ("a resnet20 here; on digits here", None)


def test_another_split_is_other_data(tmp_path: Path) -> None:
    [row] = _rows(_report(tmp_path, (SAME,), [reporting.evaluated("a.pth", 91.0, split="test-b")]))
    assert row["differs"] == "on the split test-b here"
    assert row["difference_top1_points"] is None


def test_two_files_of_one_name_both_stand_there(tmp_path: Path) -> None:
    records = [reporting.evaluated("a.pth", 91.0), reporting.evaluated("a.pth", 90.0, sha256="f" * 64)]
    assert [row["top1_percent"] for row in _rows(_report(tmp_path, (SAME,), records))] == [91.0, 90.0]


def test_the_table_says_what_is_the_same_what_differs_and_what_is_needed(tmp_path: Path) -> None:
    report = _report(tmp_path, (SAME, OTHER, MISSING))
    same = _cells(report, "same")
    assert same["comparison"] == "same model and data"
    assert same["top-1 published (%)"] == "92.50"
    assert same["top-1 ours (%)"] == "91.00 (90.50-91.40)"
    assert same["top-1 difference (points)"] == "-1.50"
    assert same["latency published (ms)"] == "3.5"
    assert same["latency ours (ms)"] == "2.00 ± 0.02"
    other = _cells(report, "other")
    assert (other["comparison"], other["top-1 difference (points)"]) == ("another network", "–")
    missing = _cells(report, "missing")
    assert missing["comparison"] == "not measured; needed: a GPU"
    assert (missing["top-1 published (%)"], missing["top-1 ours (%)"]) == ("93.00", "not measured")
    assert all(missing[header] for header in missing if header not in ("backend", "precision", "batch"))


def test_a_figure_that_is_missing_says_what_it_needs(tmp_path: Path) -> None:
    line = "s/t/half,As published,a.pth,92.5,,3.5,,TensorRT,make a"
    report = _report(tmp_path, (line,), [reporting.evaluated("a.pth", 91.0)])
    cells = _cells(report, "half")
    assert cells["comparison"] == "same model and data; needed: TensorRT"
    assert cells["latency ours (ms)"] == "not measured"
    assert _cells(_report(tmp_path, (line,)), "half")["comparison"] == "same model and data"


def test_the_caption_counts_and_the_commands_are_listed(tmp_path: Path) -> None:
    table = published_table(_report(tmp_path, (SAME, OTHER, MISSING)))
    assert table is not None
    assert table.caption.startswith(
        "s/t: 2 of 3 published rows have records of ours beside them; our accuracy on"
    )
    assert unmeasured(table) == [("s/t/missing", "make c")]
    for half in halves(table):
        assert "missing" in [cells[0] for cells in half.cells]


def test_markdown_has_the_table_and_every_command(tmp_path: Path) -> None:
    text = markdown(_report(tmp_path, (SAME, "s/t/odd,m,,1,,,,,echo `date` | tee x")))
    assert "## Beside published figures" in text
    assert "- s/t/same: `rcompress eval a.pth`" in text
    assert "- s/t/odd: `` echo `date` | tee x ``" in text
    lines = [line for line in text.splitlines() if re.match(r"\| (same|odd) \|", line)]
    assert len(lines) == 3


def test_tables_of_two_studies_share_no_beginning(tmp_path: Path) -> None:
    other = "s/u/one,M,,,,,,,make one"
    assert _cells(_report(tmp_path, (SAME, MISSING, other)), "t/same")["method"] == "As published"
    elsewhere = "x/one,M,,,,,,,make one"
    table = published_table(_report(tmp_path, (SAME, elsewhere)))
    assert table is not None
    assert table.caption.startswith("1 of 2 published rows")
    assert [cells[0] for cells in table.cells] == ["s/t/same", "s/t/same", "x/one"]


def test_without_published_figures_there_is_no_table() -> None:
    report = build_report(reporting.family())
    assert published_table(report) is None
    assert report.to_dict()["published"] == []
    assert "published" not in markdown(report)


def test_nothing_published_needs_every_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffcommand, published_id ,method\r\nmake x,x,X\r\n\r\n")
    frame = read_published([path])
    assert frame["published_id"].to_list() == ["x"]
    assert frame["published_size_bytes"].dtype == pl.Int64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("published_id,method\n", "line 1: the column command is missing"),
        ("published_id,method,command,colour\n", "line 1: 'colour' is no column of published figures"),
        ("published_id,method,command,method\n", "line 1: the column method stands there twice"),
        (f"{HEADER}\n", "holds no published row"),
        (f"{HEADER}\n{SAME}\nx,y\n", "line 3: has 2 cells where the header has 9"),
        (f"{HEADER}\n{SAME}\n{SAME}\n", "line 3: s/t/same has a line already"),
        (f"{HEADER}\nx,m,,,,,,,\n", "line 2: command is empty"),
        (f"{HEADER}\n,m,,,,,,,make\n", "line 2: published_id is empty"),
        (f"{HEADER}\nx,m,,ninety,,,,,make\n", "line 2: its top1_percent is 'ninety', not a number"),
        (f"{HEADER}\nx,m,,101,,,,,make\n", "line 2: its top1_percent is '101', not between 0 and 100"),
        (f"{HEADER}\nx,m,,nan,,,,,make\n", "line 2: its top1_percent is 'nan', not between 0 and 100"),
        (f"{HEADER}\nx,m,,,1.5,,,,make\n", "line 2: its size_bytes is '1.5', not a whole number"),
        (f"{HEADER}\nx,m,,,-1,,,,make\n", "line 2: its size_bytes is '-1', not between 0 and"),
        (f'{HEADER}\nx,"m\nm",,,,,,,make\n', "line 2: is no line of CSV"),
    ],
)
def test_a_malformed_table_is_named_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(RcompressError, match=r"table\.csv") as caught:
        read_published([path])
    assert said in str(caught.value)
    assert caught.value.remedy


def test_several_tables_follow_each_other(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"published_id,method,command\n{name},M,make {name}\n")
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert read_published(tables)["published_id"].to_list() == ["a", "b"]
    with pytest.raises(RcompressError, match=r"a\.csv, line 2: a has a line already"):
        read_published([*tables, tables[0]])


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RcompressError, match="is not UTF-8 text"):
        read_published([path])


def _on(device: str, record: Record) -> Record:
    return replace(record, context={**record.context, "device": device})


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("gpu", "same model and data; their speed is a GPU's; needed: a GPU"),
        ("tensorrt", "same model and data; their speed is TensorRT's; needed: a GPU"),
        ("cpu", "same model and data"),
        ("", "same model and data"),
    ],
)
def test_speed_of_another_device_still_needs_that_device(tmp_path: Path, theirs: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        f"published_id,method,artifact,device,latency_ms,needs,command\ns/t/a,m,a.pth,{theirs},3.5,a GPU,make a\n"
    )
    records = [reporting.evaluated("a.pth", 91.0), reporting.benched("a.pth", 2.0)]
    report = build_report(records, published=read_published([path]))
    assert _cells(report, "a")["comparison"] == said
    both = build_report(
        [*records, _on("cuda:0", reporting.benched("a.pth", 0.5))], published=read_published([path])
    )
    beside = {row["latency_p50_ms"] for row in _rows(both) if row["published_id"]}
    assert beside == {"gpu": {0.5}, "cpu": {2.0}}.get(theirs, {0.5, 2.0})
    assert {row["latency_p50_ms"] for row in _rows(both)} == {0.5, 2.0}  # what is left out there stands below


def test_an_accuracy_without_a_speed_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "published_id,method,artifact,device,top1_percent,latency_ms,command\ns/t/a,m,a.onnx,cpu,90,3.5,make a\n"
    )
    records = [
        reporting.evaluated("a.onnx", 91.0, "onnxruntime"),
        reporting.benched("a.onnx", 2.0, backend="openvino"),
    ]
    rows = _rows(build_report(records, published=read_published([path])))
    assert {(row["top1_percent"], row["latency_p50_ms"]) for row in rows} == {(91.0, None), (None, 2.0)}
    assert {row["published_id"] for row in rows} == {"s/t/a"}


def test_a_device_is_a_cpu_or_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("published_id,method,device,command\ns/t/a,m,tpu,make a\n")
    with pytest.raises(RcompressError, match="line 2: its device is 'tpu'"):
        read_published([path])
