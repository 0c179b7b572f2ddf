"""``build-engine`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from rcompress.engines import RunOptions, backend_status, load_engine
from rcompress.engines.plan_file import read_sidecar
from tests.graphs import residual

needs_rtx = pytest.mark.skipif(
    backend_status("tensorrt-rtx").version is None, reason="tensorrt-rtx is not installed"
)


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory) -> Path:
    from rcompress.artifacts.onnx_file import write_onnx
    from rcompress.export import onnx_from_module
    from rcompress.models import load_model

    loaded = load_model(trained)
    target = tmp_path_factory.mktemp("exported") / "r20.onnx"
    return write_onnx(target, onnx_from_module(loaded.module, loaded.spec), loaded.spec)


@pytest.fixture
def source(exported: Path, tmp_path: Path) -> Path:
    path = tmp_path / "r20.onnx"
    path.write_bytes(exported.read_bytes())
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.onnx"
    onnx.save(residual(), path)
    return path


def accuracy(path: Path) -> float:
    from rcompress.data import input_batches, open_dataset

    engine = load_engine(path, None, RunOptions(threads=1))
    assert engine.info.spec is not None
    test = open_dataset("digits").split("test")
    right = sum(
        int((engine.run(images.numpy()).argmax(1) == labels.numpy()).sum())
        for images, labels in input_batches(test, engine.info.spec.preprocessing, 100)
    )
    return right / len(test)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_keeps_the_accuracy_and_tells_its_history(rcompress, source: Path, backend: str) -> None:
    run = rcompress("build-engine", source, "--int8", "--backend", backend, "--calib-images", "128", "--json")
    assert run.code == 0, run.err
    told = json.loads(run.out)
    path = Path(told["output"])
    assert path.name == {"openvino": "r20-int8.xml", "onnxruntime": "r20-int8.onnx"}[backend]
    assert told["executed_layers"]["I8"] >= told["int8_convolutions"] == 21
    assert accuracy(path) > accuracy(source) - 0.02
    spec = load_engine(path).info.spec
    assert spec is not None
    step = spec.lineage[-1]
    assert step.command == "build-engine" and step.parent_name == "r20.onnx"
    assert step.options["calibration"] == {"dataset": "digits", "images": 128, "method": "minmax"}
    cache = json.loads(Path(told["calibration"]).read_text())
    assert cache["images"] == 128 and cache["dataset"] == "digits"


def test_stdout_is_the_path_alone_and_stderr_says_what_happened(rcompress, source: Path) -> None:
    run = rcompress("build-engine", source, "--int8", "--calib-images", "64")
    assert run.out == f"{source.with_name('r20-int8.xml')}\n"
    assert "21 of 21 convolutions" in run.err and "in I8" in run.err and "times the source's" in run.err


def test_cache_replaces_images(rcompress, source: Path, tmp_path: Path) -> None:
    rcompress("build-engine", source, "--int8", "--calib", "digits:64")
    cache = tmp_path / "r20-int8.calib.json"
    run = rcompress("build-engine", source, "--int8", "--calib", cache, "-o", tmp_path / "again.xml")
    assert run.code == 0, run.err
    x = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    first, second = (load_engine(tmp_path / name).run(x) for name in ("r20-int8.xml", "again.xml"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "r20.xml"),
        (("--fp16",), "r20-fp16.xml"),
        (("--bf16",), "r20-bf16.xml"),
        (("--fp16", "--backend", "onnxruntime"), "r20-fp16.onnx"),
    ],
)
def test_other_precisions(rcompress, source: Path, words: tuple[str, ...], name: str) -> None:
    run = rcompress("build-engine", source, *words)
    assert run.code == 0, run.err
    assert run.out.strip().endswith(name)
    assert accuracy(source.with_name(name)) > accuracy(source) - 0.02


def test_checkpoint_is_exported_on_the_way(rcompress, trained: Path, tmp_path: Path) -> None:
    run = rcompress("build-engine", trained, "-o", tmp_path / "direct.xml")
    assert run.code == 0, run.err
    assert accuracy(tmp_path / "direct.xml") > 0.9


@needs_rtx
def test_plan_is_recorded_as_built_not_run(rcompress, source: Path, tmp_path: Path) -> None:
    run = rcompress(
        "build-engine",
        source,
        "--int8",
        "-o",
        tmp_path / "r20.plan",
        "--target",
        "sm_86",
        "--calib-images",
        "64",
        "--json",
    )
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["backend"] in ("tensorrt-rtx", "tensorrt") and told["executed_layers"] == {"I8": 22}
    sidecar = json.loads((tmp_path / "r20.plan.json").read_text())
    if not told["runs_here"]:
        assert sidecar["model"]["lineage"][-1]["notes"][0].startswith("built here, not run")
        assert "built, not run" in run.err
    if told["size_bytes"] > told["source_bytes"]:
        assert "warning: the INT8 engine is larger than its source" in run.err


def test_foreign_graph_needs_calibration_and_normalisation(rcompress, foreign: Path) -> None:
    run = rcompress("build-engine", foreign, "--int8")
    assert run.code == 1 and "--calib DATASET --mean M,M,M --std S,S,S" in run.err
    assert rcompress("build-engine", foreign).code == 0


def test_foreign_graph_of_other_images_is_refused(rcompress, foreign: Path) -> None:
    words = ("--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    run = rcompress("build-engine", foreign, "--int8", "--calib", "digits", *words)
    assert run.code == 1 and "foreign.onnx" in run.err and "fitting images with --calib" in run.err
    run = rcompress("build-engine", foreign, "--int8", *words)
    assert run.code == 1 and "names no dataset" in run.err


@pytest.fixture
def own_images(tmp_path: Path) -> tuple[str, ...]:
    """The options that say how a foreign graph is calibrated, with images of its size."""
    from PIL import Image

    random = np.random.default_rng(0)
    for label in "abcd":
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for index in range(12):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return (
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "0.2,0.2,0.2",
        "--calib",
        f"imagefolder:{tmp_path / 'images'}:20",
    )


def test_foreign_graph_with_its_own_images(rcompress, foreign: Path, own_images: tuple[str, ...]) -> None:
    run = rcompress("build-engine", foreign, "--int8", *own_images, "--json")
    assert run.code == 0, run.err
    spec = load_engine(Path(json.loads(run.out)["output"])).info.spec
    assert spec is not None and spec.imported and spec.preprocessing.mean == (0.5, 0.5, 0.5)
    assert spec.lineage[-1].options["calibration"]["images"] == 20


def test_a_fixed_batch_is_opened_for_int8_and_the_verdict(
    rcompress, own_images: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "four.onnx"
    onnx.save(residual(batch=4), path)
    run = rcompress("build-engine", path, "--int8", *own_images)
    assert run.code == 0, run.err
    assert "verdict: ship" in run.err and "batch 1," in run.err


@needs_rtx
def test_a_fixed_batch_is_opened_for_a_range(rcompress, tmp_path: Path) -> None:
    path, plan = tmp_path / "four.onnx", tmp_path / "four.plan"
    onnx.save(residual(batch=4), path)
    words = ("build-engine", path, "--target", "sm_86", "-o", plan)
    for given, built in (((), (4, 4, 4)), (("--batch-range", "1:8:32"), (1, 8, 32))):
        run = rcompress(*words, *given)
        assert run.code == 0, run.err
        assert read_sidecar(plan).batch_range == built


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--int8", "--fp16"), 2, "choose one of"),
        (("--batch-range", "4:2:1"), 2, "no range"),
        (("--mean", "a,b"), 2, "no list of numbers"),
        (("--batch-range", "1:2:4"), 2, "are TensorRT's"),
        (("--hardware-compatible",), 2, "are TensorRT's"),
        (("--backend", "onnxruntime"), 1, "runs in ONNX Runtime as it is"),
        (("--bf16", "--backend", "onnxruntime"), 1, "no BF16 convolution"),
        (("-o", "r20.bin"), 1, "no engine is called so"),
        (("-o", "r20.onnx", "--backend", "openvino"), 1, "is no name for openvino"),
        (("--mean", "0,0,0"), 1, "already says how its images are normalised"),
        (("--int8", "--calib", "nonsense"), 1, "unknown dataset"),
        (("--int8", "--calib", "digits:0"), 1, "asks for no images"),
        (("--int8", "--calib", "none.calib.json"), 1, "no such file"),
    ],
)
def test_wrong_wishes_are_one_line_and_write_nothing(
    rcompress, source: Path, tmp_path: Path, monkeypatch, words: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = rcompress("build-engine", source, *words)
    assert run.code == code and said in run.err and run.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["r20.onnx"]


def test_wrong_sources(rcompress, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    (tmp_path / "b.txt").write_text("text")
    assert "truncated or not an ONNX model" in rcompress("build-engine", tmp_path / "a.onnx").err
    assert "neither .onnx nor .pth" in rcompress("build-engine", tmp_path / "b.txt").err
    assert "no such file" in rcompress("build-engine", tmp_path / "c.onnx").err


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_real_resnet32_in_int8(rcompress, test_data: Path, tmp_path: Path, backend: str) -> None:
    """The imported ResNet-32 keeps at least 92.5 % of CIFAR-10 in INT8, all convolutions in INT8."""
    weights = test_data / "models" / "akamaster" / "resnet32-d509ac18.th"
    where = ("--data-dir", test_data / "data")
    rcompress(
        "import",
        weights,
        "--arch",
        "resnet32",
        "--shortcut",
        "pad",
        "--dataset",
        "cifar10",
        "--mean",
        "0.485,0.456,0.406",
        "--std",
        "0.229,0.224,0.225",
        "-o",
        tmp_path / "r32.pth",
        *where,
    )
    run = rcompress("build-engine", tmp_path / "r32.pth", "--int8", "--backend", backend, "--json", *where)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["executed_layers"]["I8"] >= 33
    record = tmp_path / "record.json"
    rcompress("eval", told["output"], "-o", record, *where)
    assert json.loads(record.read_text())["records"][0]["metrics"]["top1_percent"] >= 92.5
