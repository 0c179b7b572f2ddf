"""``rcompress report`` as a user meets it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
import reporting
from PIL import Image

from rcompress.cli.app import main

PICTURES = ("accuracy-size", "accuracy-latency", "accuracy-parameters", "throughput-size", "latency")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command through its entry point, in this process: a new one costs a second each time."""

    def run(folder: Path, *arguments: str) -> Done:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["rcompress", "report", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = reporting.family()
    reporting.write(tmp_path, records[:3], "b")
    reporting.write(tmp_path, records[3:], "a")
    return tmp_path


def test_the_table_goes_to_stdout(report: Run, folder: Path) -> None:
    done = report(folder, "a.result.json", "b.result.json")
    assert done.returncode == 0, done.stderr
    quality, batch_1, batch_64 = (set(line.split()) for line in done.stdout.splitlines() if "b.onnx" in line)
    assert {"onnxruntime", "0.25", "4.00x", "-1.00", "(89.50-90.40)"} <= quality
    assert {"onnxruntime", "1", "0.500", "4.00x", "2,000"} <= batch_1
    assert {"onnxruntime", "64", "16.0", "4.00x", "4,000"} <= batch_64
    assert "Baseline: a.pth" in done.stdout


def test_footnotes_stand_below_the_table(report: Run, tmp_path: Path) -> None:
    reporting.write(tmp_path, [reporting.benched("a.pth", 2.0), reporting.benched("b.pth", 1.0, threads=2)])
    done = report(tmp_path, ".")
    assert done.stdout.endswith("[1] no speed-up: threads 2, 1 for a.pth\n")
    assert json.loads(report(tmp_path, ".", "--json").stdout)["rows"][1]["speedup"] is None


def test_markup_in_a_name_is_text(report: Run, tmp_path: Path) -> None:
    reporting.write(tmp_path, [reporting.evaluated("[red]a[/red].pth", 90.0)])
    assert "[red]a[/red].pth" in report(tmp_path, ".").stdout


def test_json_is_one_object(report: Run, folder: Path) -> None:
    said = json.loads(report(folder, ".", "--json", "--baseline", "b.onnx").stdout)
    assert said["baseline"] == "b.onnx"
    assert said["rows"][0]["compression_ratio"] == 0.25
    assert said["rows"][0]["size_bytes"] == 2**20


def test_the_page_and_its_pictures(report: Run, folder: Path) -> None:
    done = report(folder, ".", "-o", "out/page.html", "--title", "My title")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out/page.html\n"
    assert "<h1>My title</h1>" in (folder / "out/page.html").read_text()
    for name in PICTURES:
        with Image.open(folder / f"out/page-{name}.png") as picture:
            assert picture.width > 1000


def test_markdown_links_its_pictures(report: Run, folder: Path) -> None:
    assert report(folder, ".", "-o", "my report.md").returncode == 0
    text = (folder / "my report.md").read_text()
    assert "![Latency](my%20report-latency.png)" in text
    assert (folder / "my report-latency.png").exists()


def test_csv_and_parquet_hold_the_same_raw_figures(report: Run, folder: Path) -> None:
    done = report(folder, ".", "-o", "r.csv", "-o", "r.parquet")
    assert (done.returncode, done.stdout) == (0, "r.csv\nr.parquet\n")
    frame = pl.read_parquet(folder / "r.parquet")
    with (folder / "r.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["artifact"] for row in rows] == frame["artifact"].to_list()
    assert (
        [int(row["size_bytes"]) for row in rows] == frame["size_bytes"].to_list() == [2**20] * 2 + [2**18] * 2
    )
    assert frame["speedup"].to_list() == [1.0, 1.0, 4.0, 4.0]


PUBLISHED = (
    "published_id,method,artifact,top1_percent,differs,needs,command\n"
    "s/small,Pruned,b.onnx,92,,,make b\ns/engine,FP16,c.plan,93,,a GPU,make c\n"
)


def test_ours_beside_published(report: Run, folder: Path) -> None:
    (folder / "table.csv").write_text(PUBLISHED)
    done = report(folder, ".", "--against", "table.csv")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 published rows have records of ours beside them" in done.stdout
    assert "-2.00" in next(line for line in done.stdout.splitlines() if line.split()[:1] == ["small"])
    assert "not measured; needed: a GPU" in done.stdout
    assert done.stdout.splitlines()[-1] == "s/engine: make c"
    rows = json.loads(report(folder, ".", "--against", "table.csv", "--json").stdout)["published"]
    assert [row["published_id"] for row in rows] == ["s/small", "s/small", "s/engine", None, None]


def test_ours_beside_published_in_files(report: Run, folder: Path) -> None:
    (folder / "table.csv").write_text(PUBLISHED)
    for name in ("r.csv", "r.parquet", "r.md", "r.html"):
        assert report(folder, ".", "--against", "table.csv", "-o", name).returncode == 0
    frame = pl.read_parquet(folder / "r.parquet")
    assert pl.read_csv(folder / "r.csv")["published_id"].to_list() == frame["published_id"].to_list()
    assert frame["difference_top1_points"].to_list()[:3] == [-2.0, -2.0, None]
    assert "make c" in (folder / "r.md").read_text()
    assert "make c" in (folder / "r.html").read_text()


def test_training_logs_beside_the_records_are_drawn(report: Run, folder: Path) -> None:
    reporting.log(folder, "a", 3)
    done = report(folder, "a.result.json", "a.log.jsonl", "-o", "r.md")
    assert "skipped" not in done.stderr
    assert "![Loss while training](r-training-loss.png)" in (folder / "r.md").read_text()
    (folder / "a.log.jsonl").write_text("{")
    done = report(folder, ".", "-o", "r.md")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "a.log.jsonl: is no log of a training run" in done.stderr


def test_one_sheet_of_all_plots(report: Run, folder: Path) -> None:
    assert report(folder, ".", "-o", "plots.png").returncode == 0
    with Image.open(folder / "plots.png") as sheet:
        assert sheet.width > 2500
    assert len(list(folder.glob("*.png"))) == 1


def test_nothing_to_draw_is_said_of_the_picture_and_nothing_is_written(report: Run, tmp_path: Path) -> None:
    reporting.write(tmp_path, [reporting.record("eval", "a.pth", {"size_bytes": 1000}, {})])
    done = report(tmp_path, ".", "-o", "r.csv", "-o", "r.png")
    assert done.returncode == 1
    assert "r.png: there is nothing to draw" in done.stderr
    assert not list(tmp_path.glob("r.*"))


def test_missing_plots_and_skipped_files_are_told_on_stderr(report: Run, folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    reporting.write(folder, [reporting.evaluated("c.pth", 80.0)], "c")
    done = report(folder, "notes.txt", "c.result.json", "-o", "r.html")
    assert "skipped notes.txt" in done.stderr
    assert "the records hold no latency" in done.stderr
    assert done.stdout == "r.html\n"


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (None, ("none.result.json",), "no such file"),
        (None, (".",), "no *.result.json there"),
        ("", (".",), "is empty"),
        ("{", (".",), "holds no result records"),
        ('{"schema": "other/1", "records": []}', (".",), "holds no result records"),
        ('{"schema": "rcompress-result/1", "records": []}', (".",), "there is no record to show"),
        (
            '{"schema": "rcompress-result/1", "records": [{"kind": "eval"}]}',
            (".",),
            "holds no result records",
        ),
        ('{"schema": "rcompress-result/1", "records": [3]}', (".",), "holds no result records"),
        (
            '{"schema": "rcompress-result/1", "records": '
            '[{"kind": "eval", "artifact": "a", "sha256": "b", "metrics": {}, "lineage": 3}]}',
            (".",),
            "holds no result records",
        ),
    ],
    ids=[
        "missing",
        "empty folder",
        "empty",
        "truncated",
        "schema",
        "no records",
        "fields",
        "number",
        "types",
    ],
)
def test_bad_input_is_one_line(
    report: Run, tmp_path: Path, content: str | None, arguments: tuple[str, ...], said: str
) -> None:
    if content is not None:
        (tmp_path / "x.result.json").write_text(content)
    done = report(tmp_path, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "r.docx"), "is no kind of report"),
        (("-o", "a.result.json"), "is no kind of report"),
        (("--baseline", "zzz"), "is not among the artifacts"),
        (("-o", "a.result.json/r.html"), "is a file, not a folder"),
        (("--against", "none.csv"), "no such file"),
        (("--against", "a.result.json"), "is no column of published figures"),
    ],
    ids=["suffix", "input", "baseline", "folder is a file", "no table", "no CSV"],
)
def test_bad_options_are_one_line_and_write_nothing(
    report: Run, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = report(folder, ".", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == before
