"""``quantize`` as a user runs it, and what ``build-engine`` makes of its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.engines import RunOptions, backend_status, load_engine
from tests.graphs import residual
from tests.test_cli_build_engine import accuracy

needs_rtx = pytest.mark.skipif(
    backend_status("tensorrt-rtx").version is None, reason="tensorrt-rtx is not installed"
)


@pytest.fixture
def source(trained: Path, tmp_path: Path) -> Path:
    path = tmp_path / "r20.pth"
    path.write_bytes(trained.read_bytes())
    return path


@pytest.fixture(scope="session")
def quantized(trained: Path, tmp_path_factory) -> dict[str, Path]:
    """One graph for each profile, made once."""
    from rcompress.artifacts.onnx_file import write_onnx
    from rcompress.artifacts.spec import Step, parent_fields
    from rcompress.methods.calibration_data import open_images, parse_choice
    from rcompress.methods.post_training import quantize_after_training
    from rcompress.methods.quantize import QuantizeOptions
    from rcompress.methods.source_graph import open_graph

    folder, graph = tmp_path_factory.mktemp("quantized"), open_graph(trained)
    assert graph.spec is not None
    given = open_images(parse_choice("digits", 64), graph.spec, trained, None, 0)
    step = Step("quantize", **parent_fields(trained, graph.sha256))
    return {
        profile: write_onnx(
            folder / f"{profile}.onnx",
            quantize_after_training(graph.model, given, QuantizeOptions(profile))[0].model,
            graph.spec.with_step(step),
        )
        for profile in ("cpu", "tensorrt")
    }


def test_a_checkpoint_becomes_a_quantized_graph_that_tells_its_history(rcompress, source: Path) -> None:
    run = rcompress("quantize", source, "--calib-images", "128", "--bias-correction", "--json")
    assert run.code == 0, run.err
    told = json.loads(run.out)
    path = Path(told["output"])
    assert path.name == "r20-int8.onnx" and accuracy(path) > 0.9
    for graph in told["compiled"]:
        assert graph["convolutions"] == {"I8": 21} and graph["fault"] is None
        assert 0 < sum(graph["conversions"].values()) < 21
    assert "onnxruntime runs 21 of 21 convolutions in INT8" in run.err and "conversions remain" in run.err
    step = read_onnx(path).spec.lineage[-1]
    assert step.command == "quantize" and step.parent_name == "r20.pth" and step.chosen_on is None
    assert step.options["calibration"] == {"dataset": "digits", "images": 128, "method": "minmax"}
    assert step.options["quantization"]["bias_correction"] is True
    cache = json.loads(Path(told["calibration"]).read_text())
    assert cache["images"] == 128


def test_four_bits_with_adaround_are_built_as_int8(rcompress, source: Path, tmp_path: Path) -> None:
    words = ("--weight-bits", "4", "--adaround", "--adaround-iterations", "40", "--calib-images", "64")
    run = rcompress("quantize", source, *words)
    assert run.code == 0, run.err
    path = Path(run.out.strip())
    assert path.name == "r20-w4a8.onnx" and "for speed rcompress build-engine" in run.err
    kinds = {tensor.data_type for tensor in read_onnx(path).model.graph.initializer}
    assert TensorProto.INT4 in kinds and accuracy(path) > 0.8
    run = rcompress("build-engine", path, "-o", tmp_path / "w4a8.xml", "--no-verdict", "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["executed_layers"] == {"I8": 22}
    assert accuracy(tmp_path / "w4a8.xml") == pytest.approx(accuracy(path), abs=0.01)


def test_a_cache_replaces_images_but_not_for_what_needs_them(rcompress, source: Path, tmp_path: Path) -> None:
    rcompress("quantize", source, "--calib", "digits:64")
    words = ("quantize", source, "--calib", tmp_path / "r20-int8.calib.json", "-o", tmp_path / "again.onnx")
    run = rcompress(*words)
    assert run.code == 0, run.err
    first, again = (read_onnx(tmp_path / name).model.graph for name in ("r20-int8.onnx", "again.onnx"))
    assert first == again
    assert "need images, not ranges" in rcompress(*words, "--adaround").err
    assert "needs images, not ranges" in rcompress(*words, "--max-drop", "1").err


def test_thresholds_for_another_profile_are_told(rcompress, source: Path, tmp_path: Path) -> None:
    first = rcompress(
        "quantize", source, "--method", "mse", "--calib-images", 32, "-o", tmp_path / "cpu.onnx"
    )
    assert first.code == 0, first.err
    words = ("--profile", "tensorrt", "--method", "mse", "--calib", tmp_path / "cpu.calib.json")
    again = rcompress("quantize", source, *words, "-o", tmp_path / "trt.onnx")
    assert again.code == 0, again.err
    assert "thresholds are for the profile cpu: they stay" in again.err


def test_another_percentile_than_the_caches_is_told(rcompress, source: Path, tmp_path: Path) -> None:
    of = ("quantize", source, "--method", "percentile")
    first = rcompress(*of, "--percentile", 99, "--calib-images", 32, "-o", tmp_path / "a.onnx")
    assert first.code == 0, first.err
    again = rcompress(*of, "--calib", tmp_path / "a.calib.json", "-o", tmp_path / "b.onnx")
    assert again.code == 0, again.err
    assert "thresholds keep 99 % of the values: they stay" in again.err
    spec = read_onnx(tmp_path / "b.onnx").spec
    assert spec is not None and spec.lineage[-1].options["quantization"]["percentile"] == 99


def test_half_a_normalisation_is_refused(rcompress, tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "foreign.onnx")
    run = rcompress("quantize", tmp_path / "foreign.onnx", "--fp16", "--mean", "0,0,0")
    assert run.code == 1 and "is given only one of --mean and --std; give both" in run.err


def test_max_drop_says_which_layers_it_kept_and_on_what(rcompress, source: Path) -> None:
    run = rcompress("quantize", source, "--max-drop", "50", "--calib-images", "64", "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["kept"] == [] and "layers kept in FP32: none" in run.err
    assert "validation top-1" in run.err
    step = read_onnx(Path(json.loads(run.out)["output"])).spec.lineage[-1]
    assert step.chosen_on == "validation"


def test_weights_alone_need_no_images(rcompress, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(residual(), path)
    run = rcompress("quantize", path, "--weight-bits", "4", "--activation-bits", "none", "--group-size", "16")
    assert run.code == 0, run.err
    made = tmp_path / "foreign-w4.onnx"
    assert not (tmp_path / "foreign-w4.calib.json").exists()
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8), dtype=np.float32)
    before, after = (load_engine(name, None, RunOptions(threads=1)).run(x) for name in (path, made))
    assert np.abs(after - before).max() < 0.3 * np.abs(before).max()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--skip", "layer9"), 1, "has no layer 'layer9'; name one as in"),
        (("--group-size", "16"), 2, "add --activation-bits none"),
        (("--profile", "cpu", "--backend", "tensorrt-rtx"), 2, "takes the profile tensorrt"),
        (("--adaround-iterations", 5), 2, "goes with --adaround"),
        (("--percentile", "99"), 2, "goes with --method percentile"),
        (("--no-distill",), 2, "--no-distill: goes with --qat"),
        (("--fp16", "--per-tensor"), 2, "--per-tensor: --fp16 writes no integers"),
        (("--precision", "fp32"), 2, "goes with --qat"),
        (("--fp16", "--calib-images", 8), 2, "--calib-images: --fp16 writes no integers"),
        (("-o", "a.xml"), 1, "call it a.onnx"),
        (("--calib", "digits:0"), 1, "asks for no images"),
        (("--mean", "0,0,0", "--std", "1,1,1"), 1, "already says how its images are normalised"),
        (
            ("--calib", "digits:64", "--calib-images", 32),
            2,
            "--calib-images: --calib digits:64 leaves nothing",
        ),
        (("--activation-bits", "none", "--qat", "--calib", "digits"), 2, "nothing is calibrated here"),
        (("--activation-bits", "none", "--adaround", "--method", "mse"), 2, "no range is measured"),
        (
            ("--activation-bits", "none", "--group-size", 16, "--per-tensor"),
            2,
            "--group-size gives each group of inputs a scale",
        ),
    ],
)
def test_wrong_wishes_are_one_line_and_write_nothing(
    rcompress, source: Path, tmp_path: Path, monkeypatch, words: tuple[str | int, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = rcompress("quantize", source, *words)
    assert run.code == code and said in run.err and run.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["r20.pth"]


def test_a_quantized_graph_is_built_as_it_is(rcompress, quantized: dict[str, Path], tmp_path: Path) -> None:
    run = rcompress("build-engine", quantized["cpu"], "-o", tmp_path / "q.xml", "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["executed_layers"] == {"I8": 22} and "warning" not in run.err
    spec = load_engine(tmp_path / "q.xml", None, RunOptions(threads=1)).info.spec
    assert spec is not None and [step.command for step in spec.lineage][-2:] == ["quantize", "build-engine"]
    run = rcompress("build-engine", quantized["cpu"], "--int8", "-o", tmp_path / "r.xml")
    assert run.code == 1 and "is quantized already; leave --int8 out" in run.err


def test_a_signed_graph_runs_on_a_cpu_and_is_told_slow(
    rcompress, quantized: dict[str, Path], tmp_path: Path
) -> None:
    run = rcompress("build-engine", quantized["tensorrt"], "-o", tmp_path / "q.xml")
    assert run.code == 0, run.err
    assert "slowly; for a fast one: rcompress quantize r20.pth --profile cpu" in run.err
    assert accuracy(tmp_path / "q.xml") > 0.9


@needs_rtx
def test_tensorrt_takes_the_signed_graph_and_refuses_the_unsigned(
    rcompress, quantized: dict[str, Path], tmp_path: Path
) -> None:
    words = ("-o", tmp_path / "q.plan", "--backend", "tensorrt-rtx", "--target", "sm_86", "--json")
    run = rcompress("build-engine", quantized["cpu"], *words)
    assert run.code == 1 and "make a signed one: rcompress quantize r20.pth --profile tensorrt" in run.err
    run = rcompress("build-engine", quantized["tensorrt"], *words)
    assert run.code == 0, run.err
    assert json.loads(run.out)["executed_layers"] == {"I8": 22}


def test_real_foreign_network_keeps_its_accuracy(rcompress, test_data: Path, tmp_path: Path) -> None:
    """Of a fixed batch of one, opset 9 and no description: quantized on 128 images it loses next to nothing."""
    source = test_data / "models" / "vnncomp2021" / "resnet_2b.onnx"
    normalised = (
        "--mean",
        "0.4914,0.4822,0.4465",
        "--std",
        "0.2471,0.2435,0.2616",
        "--data-dir",
        test_data / "data",
    )
    made = tmp_path / "foreign.onnx"
    run = rcompress("quantize", source, "--calib", "cifar10:128", *normalised, "-o", made)
    assert run.code == 0, run.err
    assert "6 of 6 convolutions" in run.err

    def top1(path: Path, *words: object) -> float:
        record = tmp_path / f"{path.name}.json"
        assert rcompress("eval", path, *words, "-o", record, "--data-dir", test_data / "data").code == 0
        return json.loads(record.read_text())["records"][0]["metrics"]["top1_percent"]

    before = top1(source, "--dataset", "cifar10", *normalised[:4])
    assert before == pytest.approx(69.25, abs=0.005) and abs(top1(made) - before) < 0.5
