"""``rcompress sensitivity`` and the targets of ``rcompress prune`` as a user meets them."""

from __future__ import annotations

import io
import json
import shutil

import pytest
import torch
from PIL import Image

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.data import open_dataset
from rcompress.measure.complexity import module_complexity
from rcompress.models import load_model
from rcompress.training import Settings, validate


@pytest.fixture
def source(trained, tmp_path):
    return shutil.copy(trained, tmp_path / "r20.pth")


@pytest.fixture(scope="module")
def curves(trained, tmp_path_factory):
    """The curves of the trained network, written once by the command."""
    from typer.testing import CliRunner

    from rcompress.cli.app import app

    target = tmp_path_factory.mktemp("curves") / "r20.sensitivity.json"
    done = CliRunner().invoke(
        app, ["sensitivity", str(trained), "-o", str(target), "--images", "60", "--json"]
    )
    assert done.exit_code == 0, done.output
    return target


def complexity(path):
    loaded = load_model(path)
    return module_complexity(loaded.module, loaded.spec.preprocessing.input_size)


def step_of(path):
    return read_checkpoint(path).spec.lineage[-1]


def test_sensitivity_writes_curves_and_a_heat_map(curves):
    found = json.loads(curves.read_text())
    assert found["split"] == "validation"
    assert found["images"] == 60
    assert len(found["curves"]) == 12, "9 block-internal groups, 3 that cross residual additions"
    points = found["curves"]["layer1.0.conv1"]["points"]
    assert [point["kept"] for point in points] == sorted({p["kept"] for p in points}, reverse=True)
    assert points[-1]["divergence"] > points[0]["divergence"]
    picture = Image.open(io.BytesIO(curves.with_suffix(".png").read_bytes()))
    assert picture.width > 600
    assert len(picture.getcolors(1_000_000) or []) > 10


@pytest.mark.parametrize("scope", ["local", "global", "adaptive"])
def test_half_the_macs(rcompress, source, curves, scope):
    words = ["--sensitivity", curves] if scope == "adaptive" else []
    run = rcompress("prune", source, "--target-macs", "0.5x", "--scope", scope, "--round-to", 4, *words)
    assert run.code == 0, run.err
    written = source.with_name("r20-macs50.pth")
    assert run.out.strip() == str(written)
    before, after = complexity(source).macs, complexity(written).macs
    assert 0.4 * before < after <= 0.5 * before
    step = step_of(written)
    assert step.metrics["target"]["reached"] == after
    assert step.options["target"] == {"quantity": "macs", "amount": 0.5, "relative": True}
    assert step.chosen_on == ("validation" if scope == "adaptive" else None)


def test_curves_measured_on_the_way_keep_more_than_uniform_cuts(rcompress, source):
    kept = {}
    for scope in ("local", "adaptive"):
        target = source.with_name(f"{scope}.pth")
        words = ("--target-macs", "0.75x", "--scope", scope, "--round-to", 4, "-o", target)
        run = rcompress("prune", source, *words)
        assert run.code == 0, run.err
        kept[scope] = step_of(target).metrics["top1_percent_after_reestimation"]
    assert kept["adaptive"] > kept["local"]


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [("--target-params", "100k", 100_000), ("--target-size", "600KiB", 600 * 1024)],
    ids=["parameters", "size"],
)
def test_absolute_amounts(rcompress, source, option, value, limit):
    target = source.with_name("small.pth")
    run = rcompress("prune", source, option, value, "--round-to", 4, "-o", target)
    assert run.code == 0, run.err
    reached = complexity(target).parameters if option == "--target-params" else target.stat().st_size
    assert 0.8 * limit < reached <= limit


def test_a_packed_file_says_nothing_of_the_size_that_is_written(rcompress, source):
    packed = source.with_name("k.pth")
    assert rcompress("cluster", source, "--clusters", 16, "-o", packed).code == 0
    assert packed.stat().st_size < 500_000 < source.stat().st_size
    for amount, limit in (("0.5x", packed.stat().st_size / 2), ("500kB", 500_000)):
        words = ("--target-size", amount, "--round-to", 4, "-o", source.with_name("cut.pth"))
        run = rcompress("prune", packed, *words, "--json")
        assert run.code == 0, run.err
        target = json.loads(run.out)["metrics"]["target"]
        written = source.with_name("cut.pth").stat().st_size
        assert target["limit"] == limit
        assert target["reached"] - 8192 <= written <= target["reached"] <= limit


def test_max_drop_holds_on_the_data_for_choices(rcompress, source):
    run = rcompress("prune", source, "--max-drop", 3, "--round-to", 4)
    assert run.code == 0, run.err
    written = source.with_name("r20-drop3.pth")
    split = open_dataset("digits").split("validation")
    scores = []
    for path in (source, written):
        loaded = load_model(path)
        settings = Settings(torch.device("cpu"))
        scores.append(validate(loaded.module, split, loaded.spec.preprocessing, settings).top1_percent)
    assert scores[0] - scores[1] <= 3
    assert complexity(written).macs < complexity(source).macs
    step = step_of(written)
    assert step.chosen_on == "validation"
    assert step.metrics["target"]["reached"] == pytest.approx(scores[0] - scores[1], abs=1e-6)
    assert step.metrics["target"]["trials"] > 1


def test_a_latency_is_measured_on_the_engine_named(rcompress, source):
    words = ("--target-latency", "0.7x", "--backend", "onnxruntime", "--threads", 1, "--batch-size", 4)
    run = rcompress("prune", source, *words, "--json")
    assert run.code == 0, run.err
    metrics = json.loads(run.out)["metrics"]
    assert metrics["target"]["quantity"] == "latency_ms"
    assert 0 < metrics["target"]["reached"] <= metrics["target"]["limit"]
    assert metrics["latency_p50_ms"] > 0
    assert "timed in turns with the whole network" in run.err
    written = source.with_name("r20-latency70.pth")
    assert complexity(written).macs < complexity(source).macs
    conditions = step_of(written).options["conditions"]
    assert conditions == {"backend": "onnxruntime", "int8": False, "batch_size": 4, "threads": 1}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--ratio", "0.5", "--target-macs", "0.5x"),
        ("--target-macs", "0.5x", "--target-size", "1MiB"),
        ("--target-macs", "1.5x"),
        ("--target-macs", "half"),
        ("--target-macs", "-5"),
        ("--target-size", "0.2ms"),
        ("--target-latency", "3"),
        ("--scope", "adaptive", "--ratio", "0.5"),
        ("--target-macs", "0.5x", "--sensitivity", "curves.json"),
        ("--target-macs", "0.5x", "--int8"),
        ("--ratio", "0.5", "--backend", "openvino"),
        ("--target-macs", "0.5x", "--steps", "3", "--finetune-epochs", "1"),
        ("--target-latency", "0.5x", "--finetune-epochs", "1", "--resume"),
        ("--from-mask", "--target-macs", "0.5x"),
        ("--max-drop", "2", "--no-bn-reestimation"),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_refused_combinations(rcompress, source, words):
    run = rcompress("prune", source, *words)
    assert run.code == 2, run.err
    assert "Error" in run.err
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--target-macs", "10G"), "already meets the target"),
        (("--target-params", "100"), "the narrowest network of this scope costs"),
        (("--target-macs", "0.5x", "--scope", "adaptive", "--sensitivity", "no.json"), "no such file"),
        (("--target-latency", "0.5x", "--backend", "tensorrt-rtx"), "no latency to measure"),
    ],
    ids=["met", "too-small", "no-curves", "no-gpu"],
)
def test_targets_that_cannot_be_met(rcompress, source, words, fault):
    run = rcompress("prune", source, *words)
    assert run.code == 1
    assert fault in run.err
    assert run.err.count("error:") == 1
    assert list(source.parent.iterdir()) == [source]
