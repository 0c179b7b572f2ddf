"""``diagnose`` as a user runs it: it finds the layer that was damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from rcompress.artifacts.onnx_file import read_onnx, write_onnx
from rcompress.engines import backend_status, build_engine

DAMAGED = "layer2.1.conv1"


def damaged(model: onnx.ModelProto, tensor: str, factor: float) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    scale = next(entry for entry in copied.graph.initializer if entry.name == tensor)
    scale.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(scale), tensor))
    return copied


@pytest.fixture(scope="module")
def files(trained: Path, tmp_path_factory) -> Path:
    """r20.pth, its INT8 graph, and the same with one weight scale 50 times too large, as graph and as engine."""
    import torch

    from rcompress.artifacts.spec import Step, parent_fields
    from rcompress.methods.calibration_data import CalibrationChoice, open_images
    from rcompress.methods.post_training import quantize_after_training
    from rcompress.methods.source_graph import open_graph

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("diagnose")
    source = Path(shutil.copy(trained, folder / "r20.pth"))
    graph = open_graph(source)
    assert graph.spec is not None
    calibration = open_images(CalibrationChoice(None, 64), graph.spec, source, None, 0)
    quantized, _ = quantize_after_training(graph.model, calibration)
    spec = graph.spec.with_step(Step("quantize", **parent_fields(source, graph.sha256)))
    write_onnx(
        folder / "r20.onnx",
        graph.model,
        graph.spec.with_step(Step("export", **parent_fields(source, graph.sha256))),
    )
    write_onnx(folder / "int8.onnx", quantized.model, spec)
    broken = damaged(quantized.model, f"{DAMAGED}.weight_scale", 50)
    write_onnx(folder / "broken.onnx", broken, spec)
    build_engine(broken, spec, folder / "broken.xml", "openvino")
    return folder


def test_a_healthy_graph_parts_nowhere(rcompress, files: Path) -> None:
    run = rcompress(
        "diagnose", files / "r20.pth", files / "int8.onnx", "--images", 40, "--json", "--threads", 1
    )
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["first_parting"] is None and (told["split"], told["images"]) == ("validation", 40)
    assert len(told["layers"]) == 22 + 9 and told["notes"] == []
    for layer in told["layers"]:
        assert layer["snr_db"] > 15 and layer["own_snr_db"] > 20 and layer["cosine"] > 0.98
        assert abs(layer["top1_difference_points"]) < 5
    names = {layer["layer"] for layer in told["layers"]}
    assert {"conv1", DAMAGED, "layer3.2.add", "fc"} <= names


def test_the_damaged_layer_is_the_first_parting_and_the_most_expensive(
    rcompress, files: Path, tmp_path: Path
) -> None:
    run = rcompress(
        "diagnose",
        files / "r20.pth",
        files / "broken.onnx",
        "--plot",
        tmp_path / "layers.png",
        "--threads",
        1,
        "--images",
        80,
    )
    assert run.code == 0, run.err
    assert f"they part at {DAMAGED} (layer2)" in run.out
    rows = [
        line.split()[0] for line in run.out.splitlines() if line.strip().startswith(("conv", "layer", "fc"))
    ]
    assert rows[:2] == ["layer", DAMAGED]  # the heading, then the most expensive one
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.size[0] > 1000


def test_an_engine_shows_its_tensors_too(rcompress, files: Path) -> None:
    run = rcompress(
        "diagnose", files / "r20.onnx", files / "broken.xml", "--images", 40, "--json", "--threads", 1
    )
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["first_parting"] == {"layer": DAMAGED, "stage": "layer2"}
    assert "broken.xml is an engine" in told["notes"][0]
    assert "top1_difference_points" not in told["layers"][0] and told["top1_difference_points"] < 0
    assert told["layers"][0]["snr_db"] < 10


def test_before_and_after_export_nothing_differs(rcompress, files: Path) -> None:
    run = rcompress(
        "diagnose", files / "r20.pth", files / "r20.onnx", "--images", 20, "--json", "--threads", 1
    )
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["notes"] == ["no layer of B differs from that of A"] and told["first_parting"] is None
    assert told["output"]["max_abs_error"] < 1e-4 and told["top1_difference_points"] == 0


def test_other_widths_are_compared_at_the_outputs(rcompress, files: Path, tmp_path: Path) -> None:
    pruned = rcompress(
        "prune", files / "r20.pth", "--ratio", "0.5", "--finetune-epochs", 0, "-o", tmp_path / "p.pth"
    )
    assert pruned.code == 0, pruned.err
    run = rcompress("diagnose", files / "r20.pth", tmp_path / "p.pth", "--images", 20, "--threads", 1)
    assert run.code == 0, run.err
    assert "other widths: the outputs alone are compared" in run.err and "logits" in run.out


def test_an_engine_of_other_widths_is_compared_where_the_widths_agree(
    rcompress, files: Path, tmp_path: Path
) -> None:
    for words in (
        ("prune", files / "r20.pth", "--ratio", "0.5", "--no-bn-reestimation", "-o", tmp_path / "p.pth"),
        ("export", tmp_path / "p.pth", "-o", tmp_path / "p.onnx"),
        ("build-engine", tmp_path / "p.onnx", "-o", tmp_path / "p.xml"),
    ):
        assert rcompress(*words).code == 0
    words = (files / "r20.pth", tmp_path / "p.xml", "--images", 20, "--json", "--threads", 1)
    run = rcompress("diagnose", *words)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    compared = {layer["layer"] for layer in told["layers"] if "snr_db" in layer}
    assert "fc" in compared and "layer3.0.conv1" not in compared
    assert "snr_db" in told["output"]
    assert any("other widths" in note for note in told["notes"])


def test_a_stranger_is_refused(rcompress, files: Path, tmp_path: Path) -> None:
    found = read_onnx(files / "int8.onnx")
    assert found.spec is not None
    from dataclasses import replace

    stranger = write_onnx(tmp_path / "stranger.onnx", found.model, replace(found.spec, lineage=()))
    run = rcompress("diagnose", files / "r20.pth", stranger)
    assert run.code == 1 and "has no file of its history in common with r20.pth" in run.err


def test_a_descendant_with_other_classes_is_refused(rcompress, files: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in "abc":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32)).save(tmp_path / part / name / f"{number}.png")
    words = ("--init", files / "r20.pth", "--dataset", f"imagefolder:{tmp_path}", "--epochs", 0)
    assert rcompress("train", *words, "-o", tmp_path / "three.pth").code == 0
    run = rcompress("diagnose", files / "r20.pth", tmp_path / "three.pth")
    assert run.code == 1 and "three.pth: has 3 classes, r20.pth 10" in run.err


def test_files_that_say_nothing_are_refused(rcompress, tmp_path: Path) -> None:
    from tests.graphs import residual

    for name in ("a.onnx", "b.onnx"):
        onnx.save(residual(), tmp_path / name)
    run = rcompress("diagnose", tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert run.code == 1 and "says nothing of its images" in run.err


@pytest.mark.skipif(
    backend_status("tensorrt-rtx").version is None or backend_status("tensorrt-rtx").usable,
    reason="needs tensorrt-rtx without a GPU",
)
def test_an_engine_that_cannot_run_here_is_one_line(rcompress, files: Path, tmp_path: Path) -> None:
    plan = tmp_path / "r20.plan"
    built = rcompress("build-engine", files / "r20.onnx", "-o", plan, "--target", "sm_86")
    assert built.code == 0, built.err
    run = rcompress("diagnose", files / "r20.onnx", plan)
    assert run.code == 1 and len(run.err.splitlines()) == 1 and "r20.plan" in run.err


def test_fewer_images_than_a_fixed_batch_are_one_line(rcompress, files: Path, tmp_path: Path) -> None:
    found = read_onnx(files / "int8.onnx")
    assert found.spec is not None
    fixed = onnx.ModelProto()
    fixed.CopyFrom(found.model)
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    path = write_onnx(tmp_path / "fixed.onnx", fixed, found.spec)
    run = rcompress("diagnose", files / "r20.pth", path, "--images", 4, "--threads", 1)
    assert run.code == 1 and "needs 8 images at once; give more with --images" in run.err
