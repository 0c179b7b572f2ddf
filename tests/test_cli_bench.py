"""``rcompress bench`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rcompress.artifacts.records import read_records
from rcompress.cli.app import main
from tests import tiny

QUICK = ("-b", "1", "-b", "2", "--iterations", "5", "--trials", "2", "--warmup", "1")


def bench(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rcompress", "bench", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def folder(tmp_path):
    tiny.tiny_onnx(tmp_path / "a.onnx")
    tiny.tiny_onnx(tmp_path / "b.onnx")
    return tmp_path


def test_a_table_and_records(folder):
    done = bench(folder, "a.onnx", "b.onnx", *QUICK)
    assert done.returncode == 0, done.stderr
    records = read_records(folder / "bench.result.json")
    assert [(r.artifact, r.context["batch_size"]) for r in records] == [
        ("a.onnx", 1),
        ("b.onnx", 1),
        ("a.onnx", 2),
        ("b.onnx", 2),
    ]
    lines = done.stdout.splitlines()
    assert sum(line.split()[:2] == ["b.onnx", "onnxruntime"] for line in lines) == 2
    assert records[0].machine["instruction_set"] in done.stdout
    assert "1 thread" in done.stdout and "onnxruntime" in done.stdout
    assert f"{records[3].metrics['latency_p50_ms']:.3f}" in done.stdout
    assert f"{tiny.PARAMETERS}" in done.stdout
    assert "records: bench.result.json" in done.stderr


def test_json_is_the_file_and_alone_on_stdout(folder):
    done = bench(folder, "a.onnx", *QUICK, "--json", "-o", "out.result.json", "-q", "--backend", "openvino")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    assert printed == json.loads((folder / "out.result.json").read_text())
    assert {entry["context"]["backend"] for entry in printed["records"]} == {"openvino"}
    assert not (folder / "bench.result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "Missing argument"),
        (("a.onnx", "-b", "0"), 2, "batch-size"),
        (("a.onnx", "--backend", "abacus"), 2, "abacus"),
        (("none.onnx",), 1, "none.onnx: no such file; check the path"),
        (("a.onnx", "-o", "a.onnx"), 1, "also the input"),
        (("a.onnx", "--device", "cuda:9"), 1, "onnxruntime runs it on the CPU"),
    ],
    ids=["nothing", "no images", "unknown backend", "missing file", "output is input", "no such GPU"],
)
def test_what_cannot_work_is_said_in_one_line(folder, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["rcompress", "bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code == status, shown.err
    assert message in shown.err
    assert shown.out == ""
    assert not (folder / "bench.result.json").exists()
    if status == 1:
        assert len(shown.err.splitlines()) == 1
