"""The verdict after ``build-engine --int8``, with real engines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rcompress.artifacts.checkpoint import read_checkpoint, write_checkpoint
from rcompress.artifacts.records import read_records
from rcompress.artifacts.spec import ModelSpec
from rcompress.engines import backend_status
from rcompress.engines.ov import computes


@pytest.fixture
def source(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained, tmp_path / "r20.pth"))


def build(rcompress, source: Path, *words: object):
    return rcompress("build-engine", source, "--int8", "--calib-images", 64, "--threads", 1, *words)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_engine_is_compared_and_the_record_kept(rcompress, source: Path, backend: str) -> None:
    run = build(rcompress, source, "--backend", backend, "--json")
    assert run.code == 0, run.err
    told = json.loads(run.out)
    verdict = told["verdict"]
    precisions = [each["precision"] for each in verdict["contenders"]]
    halves = [half for half in ("fp16", "bf16") if backend == "openvino" and computes(half.upper())]
    assert precisions == ["fp32", *halves, "int8"]
    assert verdict["ship"] in precisions and f"verdict: ship {verdict['ship'].upper()}" in run.err
    assert (verdict["split"], verdict["batch_size"], verdict["threads"]) == ("validation", 1, 1)
    *_, int8 = verdict["contenders"]
    assert int8["size_bytes"] == told["size_bytes"] and int8["executed_layers"] == told["executed_layers"]
    [record] = read_records(Path(verdict["record"]))
    assert (record.kind, record.artifact) == ("verdict", Path(told["output"]).name)
    assert record.metrics["latency_p50_ms"] == int8["latency_p50_ms"]
    assert sorted(path.suffix for path in source.parent.iterdir() if path.stem == "r20-int8") == sorted(
        {"openvino": [".xml", ".bin"], "onnxruntime": [".onnx"]}[backend]
    )


def test_the_report_tells_of_it(rcompress, source: Path) -> None:
    build(rcompress, source, "--batch-size", 4, "--verdict-images", 50)
    run = rcompress("report", source.parent)
    assert run.code == 0, run.err
    assert "verdict: ship" in run.out and "50 images of digits validation" in run.out and "batch 4" in run.out


def test_no_verdict_where_none_is_wanted(rcompress, source: Path) -> None:
    run = build(rcompress, source, "--no-verdict")
    assert run.code == 0 and "verdict:" not in run.err
    assert not list(source.parent.glob("*.verdict.result.json"))


def test_without_labelled_images_speed_alone_is_compared(rcompress, source: Path, tmp_path: Path) -> None:
    first = build(rcompress, source, "--no-verdict", "--json")
    cache = json.loads(first.out)["calibration"]
    found = read_checkpoint(source)
    described = found.spec.to_dict()
    described["preprocessing"]["dataset"] = None
    nameless = write_checkpoint(tmp_path / "nameless.pth", ModelSpec.from_dict(described), found.state_dict)
    run = rcompress("build-engine", nameless, "--int8", "--calib", cache, "--threads", 1)
    assert run.code == 0, run.err
    assert "the verdict compares speed alone: the file names no dataset" in run.err
    assert "verdict: accuracy was not measured" in run.err


@pytest.mark.skipif(
    backend_status("tensorrt-rtx").version is None or backend_status("tensorrt-rtx").usable,
    reason="needs tensorrt-rtx without a GPU",
)
def test_an_engine_that_cannot_run_here_gets_no_verdict(rcompress, source: Path) -> None:
    run = build(rcompress, source, "-o", source.parent / "r20.plan", "--target", "sm_86")
    assert run.code == 0, run.err
    assert "no verdict on INT8: tensorrt" in run.err


def test_an_imported_network_is_told_where_to_report(rcompress, trained: Path, tmp_path: Path) -> None:
    """Its choices are made on half of the test split."""
    weights = tmp_path / "weights.pt"
    torch.save(read_checkpoint(trained).state_dict, weights)
    words = ("--arch", "resnet20", "--dataset", "digits", "-o", tmp_path / "r20.pth")
    assert rcompress("import", weights, *words).code == 0
    run = build(rcompress, tmp_path / "r20.pth", "--backend", "onnxruntime", "--json")
    assert run.code == 0, run.err
    [record] = read_records(Path(json.loads(run.out)["verdict"]["record"]))
    assert record.context["split"] == "test-a" and "comes from test-b" in record.notes[1]
