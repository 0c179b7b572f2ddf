"""Artifacts of several kinds timed together."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from rcompress.engines import RunOptions, build_engine, load_engine
from rcompress.engines.base import Engine, EngineInfo
from rcompress.engines.benchmark import BenchOptions, benchmark, distinct_names, main_precision
from rcompress.engines.inputs import random_inputs
from rcompress.engines.probe import libraries
from rcompress.errors import RcompressError
from rcompress.measure.latency import Latency
from tests import tiny

QUICK = {"warmup": 1, "iterations": 5, "trials": 2, "run": RunOptions(threads=1)}


class Notes(list[str]):
    def start(self, description, total): ...

    def advance(self, units=1, **figures): ...

    def note(self, message):
        self.append(message)


def test_one_record_for_each_artifact_and_batch(tmp_path):
    graph = tiny.tiny_onnx(tmp_path / "t.onnx")
    engine = build_engine(tiny.tiny_graph(), tiny.tiny_spec(), tmp_path / "t.xml", "openvino")
    checkpoint = tiny.tiny_checkpoint(tmp_path / "r20.pth")
    records = benchmark([checkpoint, graph, engine], BenchOptions(batch_sizes=(1, 3), **QUICK))

    keys = [(r.artifact, r.context["backend"], r.context["batch_size"]) for r in records]
    three = [("r20.pth", "torch"), ("t.onnx", "onnxruntime"), ("t.xml", "openvino")]
    assert keys == [(*one, batch) for batch in (1, 3) for one in three]
    for record in records:
        assert record.kind == "bench"
        assert record.context["calls"] == 10
        assert record.context["transfers"] == "none"
        assert record.context["speedup_against"] == "r20.pth"
        assert record.context["precision"] == "fp32"
        metrics = record.metrics
        assert 0 < metrics["latency_p50_ms"] <= metrics["latency_p90_ms"] <= metrics["latency_p99_ms"]
        assert metrics["latency_speedup_low"] <= metrics["latency_speedup"] <= metrics["latency_speedup_high"]
        assert metrics["throughput_images_per_s"] > 0
        assert metrics["peak_memory_bytes"] > 0
    assert records[0].metrics["latency_speedup"] == 1.0
    assert records[0].metrics["parameters"] == 272_474
    assert records[1].metrics["macs"] == records[2].metrics["macs"] == tiny.MACS
    assert records[2].sha256 == load_engine(engine).info.sha256
    assert [step["command"] for step in records[2].lineage] == ["export"]


def test_a_fixed_batch_is_timed_at_its_own_size_and_said(tmp_path):
    free, fixed = tiny.tiny_onnx(tmp_path / "free.onnx"), tiny.tiny_onnx(tmp_path / "fixed.onnx", batch=2)
    notes = Notes()
    records = benchmark([free, fixed], BenchOptions(batch_sizes=(1,), **QUICK), notes)
    assert [(r.artifact, r.context["batch_size"]) for r in records] == [
        ("free.onnx", 1),
        ("free.onnx", 2),
        ("fixed.onnx", 2),
    ]
    assert any("fixed.onnx does not take all batch sizes: timed at 2" in note for note in notes)
    assert records[2].context["speedup_against"] == "free.onnx"


def test_a_batch_that_no_artifact_allows_is_left_out(tmp_path):
    fixed = tiny.tiny_onnx(tmp_path / "fixed.onnx", batch=2)
    records = benchmark([fixed], BenchOptions(batch_sizes=(1, 64), **QUICK))
    assert [r.context["batch_size"] for r in records] == [2]


class OnSomeGpu:
    """An engine that says of itself that it runs on a GPU."""

    def __init__(self, engine: Engine) -> None:
        self.info = replace(engine.info, device="Some GPU")
        self.prepare, self.close = engine.prepare, engine.close


def test_times_of_a_gpu_are_not_held_against_a_cpus(tmp_path, monkeypatch):
    paths = [tiny.tiny_onnx(tmp_path / name) for name in ("gpu0.onnx", "cpu0.onnx", "cpu1.onnx", "gpu1.onnx")]

    def load(path, *rest):
        engine = load_engine(path, *rest)
        return OnSomeGpu(engine) if path.name.startswith("gpu") else engine

    monkeypatch.setattr("rcompress.engines.benchmark.load_engine", load)
    monkeypatch.setattr("rcompress.engines.benchmark._device", lambda _info, _run: "cpu")
    records = benchmark(paths, BenchOptions(batch_sizes=(1,), **QUICK))
    assert [r.context["speedup_against"] for r in records] == [
        "gpu0.onnx",
        "cpu0.onnx",
        "cpu0.onnx",
        "gpu0.onnx",
    ]
    assert [r.metrics["latency_speedup"] == 1.0 for r in records[:2]] == [True, True]


def test_loading_counts_no_memory_but_running_does(tmp_path):
    """A batch needs what its activations take; what was needed to read the file is not in it."""
    path = tiny.tiny_onnx(tmp_path / "t.onnx")
    small, large = (
        r.metrics["peak_memory_bytes"] for r in benchmark([path], BenchOptions((1, 4096), **QUICK))
    )
    inputs = 4096 * 3 * tiny.SIDE**2 * 4
    assert large - small > inputs


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "t.onnx", tmp_path / "b" / "t.onnx", tmp_path / "u.onnx"]
    assert distinct_names(paths) == [str(paths[0]), str(paths[1]), "u.onnx"]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(RcompressError, match="no such file"):
        benchmark([tmp_path / "none.onnx"], BenchOptions(**QUICK))


@pytest.mark.parametrize(
    ("executed", "precision"),
    [({"I8": 20, "F32": 1}, "int8"), ({"F32": 3}, "fp32"), ({"BF16": 2, "F32": 1}, "bf16"), ({}, None)],
)
def test_the_precision_is_that_of_most_layers(executed, precision):
    assert main_precision(executed) == precision


def info(shape: tuple[int | None, ...], dtype: str, tmp_path) -> EngineInfo:
    return EngineInfo("torch", tmp_path / "x", "", None, shape, dtype)


def test_random_inputs_are_shaped_and_typed_as_asked(tmp_path):
    floats = random_inputs(info((None, 3, 5, 6), "float32", tmp_path), 4)
    assert (floats.shape, floats.dtype) == ((4, 3, 5, 6), np.float32)
    assert (floats == random_inputs(info((None, 3, 5, 6), "float32", tmp_path), 4)).all()
    pixels = random_inputs(info((None, 5, 6, 3), "uint8", tmp_path), 2)
    assert (pixels.shape, pixels.dtype) == ((2, 5, 6, 3), np.uint8)
    assert pixels.max() > 200


def test_an_open_image_size_is_refused(tmp_path):
    with pytest.raises(RcompressError, match="image size open"):
        random_inputs(info((None, 3, None, None), "float32", tmp_path), 1)


@pytest.mark.parametrize(
    ("suffix", "runtime", "not_needed"),
    [
        (".onnx", "onnxruntime", {"torch", "torchvision", "openvino"}),
        (".xml", "openvino", {"torch", "torchvision", "onnxruntime"}),
        (".pth", "torch", {"torchvision", "onnxruntime", "openvino"}),
    ],
)
def test_memory_is_that_of_an_engine_beside_its_own_runtime(tmp_path, suffix, runtime, not_needed):
    if suffix == ".xml":
        path = build_engine(tiny.tiny_graph(), tiny.tiny_spec(), tmp_path / "t.xml", "openvino")
    else:
        make = tiny.tiny_onnx if suffix == ".onnx" else tiny.tiny_checkpoint
        path = make(tmp_path / f"t{suffix}")
    info = load_engine(path).info
    code = (
        "import json, sys\n"
        "from rcompress.engines.probe import engine_stages\n"
        "stages = engine_stages(*json.loads(sys.argv[1]))\n"
        "next(stages)\n"
        "print(json.dumps([list(sys.modules), len(list(stages)), list(sys.modules)]))\n"
    )
    arguments = [str(path), info.backend, asdict(QUICK["run"]), [1, 3], libraries(info)]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], check=True, capture_output=True, text=True
    )
    before, stages, after = json.loads(done.stdout)
    assert runtime in before
    assert not not_needed & set(after)
    assert stages == 2


def test_ratios_and_rates(tmp_path, monkeypatch):
    at = "rcompress.engines.benchmark."
    taken = {"a.onnx": 4.0, "b.onnx": 1.0}
    monkeypatch.setattr(
        at + "_peaks", lambda engines, batches, *_: [dict.fromkeys(batches, 1) for _ in engines]
    )
    monkeypatch.setattr(
        at + "time_interleaved",
        lambda calls, *_: [Latency(name, ((taken[name],) * 5,) * 2, (1.0, 1.0)) for name, _ in calls],
    )
    first, second = benchmark(
        [tiny.tiny_onnx(tmp_path / name) for name in taken], BenchOptions((8,), **QUICK)
    )
    assert (first.metrics["latency_speedup"], first.metrics["throughput_images_per_s"]) == (1.0, 2000.0)
    assert (second.metrics["latency_speedup"], second.metrics["throughput_images_per_s"]) == (4.0, 8000.0)
