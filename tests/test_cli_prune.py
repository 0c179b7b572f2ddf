"""`rcompress prune` on digits: every importance, what a file becomes later, zero filters, what is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from rcompress.models import load_model

FRESH = """
import sys, torch
from rcompress.models import load_model
module = load_model(__import__("pathlib").Path(sys.argv[1])).module
with torch.inference_mode():
    torch.save(module(torch.load("images.pt")), "logits.pt")
"""
QUICK = ("--threads", 1, "--no-bn-reestimation")


def logits(path, images):
    with torch.inference_mode():
        return load_model(path).module(images)


def top1(rcompress, name):
    shown = rcompress("eval", name, "--json")
    assert shown.code == 0, shown.err
    return json.loads(shown.out)["metrics"]["top1_percent"]


def test_a_pruned_file_loads_afresh_exports_quantizes_and_builds(folder, rcompress):
    run = rcompress(
        "prune", "r20.pth", "--ratio", 0.4, "--scope", "global", "--importance", "taylor", "--threads", 1
    )
    assert (run.code, run.out) == (0, "r20-pruned40.pth\n"), run.err
    assert "BatchNorm re-estimated" in run.err
    images = torch.randn(2, 3, 32, 32)
    torch.save(images, folder / "images.pt")
    subprocess.run([sys.executable, "-c", FRESH, "r20-pruned40.pth"], check=True)
    assert torch.equal(torch.load(folder / "logits.pt"), logits(folder / "r20-pruned40.pth", images))
    assert rcompress("export", "r20-pruned40.pth").code == 0
    quantized = rcompress("quantize", "r20-pruned40.onnx", "--threads", 1, "-o", "int8.onnx")
    assert quantized.code == 0, quantized.err
    built = {"openvino": "e.xml", "onnxruntime": "e.onnx", "tensorrt-rtx": "e.plan"}
    for backend, name in built.items():
        target = ("--target", "sm_86") if backend == "tensorrt-rtx" else ()
        made = rcompress("build-engine", "r20-pruned40.onnx", "--backend", backend, "-o", name, *target)
        assert made.code == 0, made.err
        assert (folder / name).stat().st_size > 50_000
    plain = top1(rcompress, "r20-pruned40.pth")
    assert plain > 40  # BatchNorm's new statistics alone
    assert top1(rcompress, "e.xml") == pytest.approx(plain, abs=0.5)
    assert top1(rcompress, "int8.onnx") == pytest.approx(plain, abs=8)


@pytest.mark.parametrize("importance", ["l1", "bn-scale", "fpgm", "lamp", "hessian", "activation", "random"])
def test_every_importance_from_the_command_line(folder, rcompress, importance):
    run = rcompress(
        "prune", "r20.pth", "--ratio", 0.5, "--importance", importance, "--round-to", 8, *QUICK, "--json"
    )
    assert run.code == 0, run.err
    metrics = json.loads(run.out)["metrics"]
    assert metrics["parameters"] == 68_786  # half of every layer, whichever channels they are
    step = load_model(folder / "r20-pruned50.pth").spec.lineage[-1]
    assert (step.options["importance"], step.options["bn_reestimation"]) == (importance, False)


def test_reestimation_is_on_by_default_and_its_effect_told(folder, rcompress):
    run = rcompress("prune", "r20.pth", "--ratio", 0.5, "--threads", 1, "--json")
    metrics = json.loads(run.out)["metrics"]
    before, after = (metrics[f"top1_percent_{when}_reestimation"] for when in ("before", "after"))
    assert after > before + 5
    assert f"{before:.2f} % -> {after:.2f} %" in run.err
    assert rcompress("prune", "r20.pth", "--ratio", 0.5, *QUICK, "-o", "raw.pth").code == 0
    assert top1(rcompress, "raw.pth") < top1(rcompress, "r20-pruned50.pth")


def test_what_stays_is_named_and_recorded(folder, rcompress):
    run = rcompress("prune", "r20.pth", "--ratio", 0.5, "--keep-residual", "--ignore", "layer3", *QUICK)
    assert run.code == 0, run.err
    assert "not pruned (crosses a residual addition (--keep-residual))" in run.err
    assert "layer3.0.conv1: not pruned (layer3.0.conv1 is to be left alone (--ignore))" in run.err
    loaded = load_model(folder / "r20-pruned50.pth")
    assert any("--keep-residual" in note for note in loaded.spec.lineage[-1].notes)
    assert loaded.module.conv1.out_channels == 16
    assert loaded.module.layer3[0].conv1.out_channels == 64
    assert loaded.module.layer2[0].conv1.out_channels == 16
    unknown = rcompress("prune", "r20.pth", "--ratio", 0.5, "--ignore", "layer7", *QUICK)
    assert unknown.code == 1
    assert "no layer 'layer7'" in unknown.err


def test_zero_filters_are_removed_for_real(folder, rcompress):
    assert rcompress("sparsify", "r20.pth", "--filters", 0.3, "--threads", 1, "-o", "masked.pth").code == 0
    run = rcompress("prune", "--from-mask", "masked.pth", "--json")
    assert run.code == 0, run.err
    answer = json.loads(run.out)
    assert answer["output"] == "masked-unmasked.pth"
    assert answer["metrics"]["parameters"] < 272_474
    assert "channels were zero and are gone" in run.err
    assert "the same channels of coupled layers are not zero" in run.err
    images = torch.randn(4, 3, 32, 32)
    before, after = (logits(folder / name, images) for name in ("masked.pth", "masked-unmasked.pth"))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    assert load_model(folder / "masked-unmasked.pth").spec.lineage[-1].options["from_mask"] is True
    nothing = rcompress("prune", "--from-mask", "r20.pth")
    assert nothing.code == 1
    assert "no filter of this network is zero" in nothing.err


def test_fine_tuning_learns_from_the_parent(folder, rcompress):
    run = rcompress(
        *("prune", "r20.pth", "--ratio", 0.5, "--ignore", "conv1", "--threads", 1, "--json"),
        *("--finetune-epochs", 1, "-b", 64),
    )
    assert run.code == 0, run.err
    step = load_model(folder / "r20-pruned50.pth").spec.lineage[-1]
    assert any("conv1" in note for note in step.notes)
    assert step.options["distillation"]["loss"] == "logits"
    assert step.chosen_on == "validation"
    assert json.loads(run.out)["metrics"]["top1_percent"] > 50


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--ratio", 0.5, "--from-mask"),
        ("--from-mask", "--scope", "global"),
        ("--ratio", 0.5, "--round-to", 0),
        ("--ratio", 0.5, "--round-to", "often"),
        ("--ratio", 0.5, "--temperature", 4),
        ("--ratio", 0.5, "--round-to", "auto", "--finetune-epochs", 1, "--resume"),
    ],
    ids=lambda words: " ".join(map(str, words)) or "nothing",
)
def test_wrong_usage(folder, rcompress, words):
    assert rcompress("prune", "r20.pth", *words).code == 2


def test_importances_that_look_at_images_need_data(tmp_path, rcompress, monkeypatch):
    from tiny import tiny_checkpoint

    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "tiny.pth")
    refused = rcompress("prune", "tiny.pth", "--ratio", 0.5, "--importance", "taylor")
    assert refused.code == 1
    assert "names no dataset" in refused.err
    cut = rcompress("prune", "tiny.pth", "--ratio", 0.5)
    assert cut.code == 0
    assert "BatchNorm's statistics stay as they were" in cut.err


def test_steps_are_refused_under_torchrun(folder, rcompress, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    run = rcompress("prune", "r20.pth", "--ratio", 0.5, "--steps", 2, "--finetune-epochs", 1)
    assert run.code == 2
    assert "go with one process" in " ".join(run.err.replace("│", " ").split())


@pytest.mark.parametrize(
    "words",
    [("--target-latency", "0.5x"), ("--ratio", 0.5, "--round-to", "auto")],
    ids=lambda words: " ".join(map(str, words)),
)
def test_widths_that_are_measured_are_refused_under_torchrun(tmp_path, rcompress, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    run = rcompress("prune", "r20.pth", *words, "--finetune-epochs", 1)
    assert run.code == 2
    assert "prune with one process" in " ".join(run.err.replace("│", " ").split())


def test_a_step_does_not_replace_what_it_is_made_of(folder, rcompress):
    source = folder / "out-step03.pth"
    source.write_bytes((folder / "r20.pth").read_bytes())
    run = rcompress(
        "prune", source, "--ratio", 0.5, "--steps", 5, "--finetune-epochs", 1, "-o", folder / "out.pth"
    )
    assert run.code == 1 and "out-step03.pth" in run.err, run.err
    assert source.read_bytes() == (folder / "r20.pth").read_bytes()
    assert not (folder / "out-step01.pth").exists()


def test_a_student_does_not_replace_its_teacher(folder, rcompress):
    teacher = folder / "r20-pruned60.pth"
    teacher.write_bytes((folder / "r20.pth").read_bytes())
    run = rcompress("prune", "r20.pth", "--ratio", 0.6, "--finetune-epochs", 1, "--teacher", teacher)
    assert run.code == 1 and "r20-pruned60.pth" in run.err
    assert teacher.read_bytes() == (folder / "r20.pth").read_bytes()


@pytest.mark.parametrize("command", ["prune", "sensitivity"])
def test_an_importance_that_tells_nothing_is_said(folder, rcompress, command):
    (folder / "without_norm.py").write_text(
        "import torch\n"
        "def net(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, num_classes))\n"
    )
    made = rcompress(
        "train", "--arch", "without_norm:net", "--dataset", "digits", "--epochs", 0, "-o", "m.pth"
    )
    assert made.code == 0, made.err
    words = ("--ratio", 0.5, "--scope", "global") if command == "prune" else ()
    run = rcompress(command, "m.pth", "--arch", "without_norm:net", "--importance", "bn-scale", *words)
    assert run.code == 1 and "finds nothing to score in this network" in run.err
