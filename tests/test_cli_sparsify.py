"""``rcompress sparsify`` as a user meets it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_checkpoint

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.artifacts.onnx_file import read_onnx
from rcompress.measure.size import graph_weights
from rcompress.models import load_model

FRESH = """
import sys, torch
from pathlib import Path
from rcompress.models import load_model
torch.manual_seed(1)
module = load_model(Path(sys.argv[1])).module.eval()
with torch.no_grad():
    torch.save(module(torch.randn(2, 3, 32, 32)), sys.argv[2])
"""


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    state = read_checkpoint(path).state_dict
    return {name: t for name, t in state.items() if t.dim() in (2, 4)}


def share_of_zeros(path: Path) -> float:
    weights = torch.cat([tensor.flatten() for tensor in weights_of(path).values()])
    return float((weights == 0).float().mean())


def test_one_shot_with_everything_said(rcompress, trained, tmp_path):
    target = tmp_path / "sparse.pth"
    run = rcompress("sparsify", trained, "--sparsity", 0.75, "-o", target, "--threads", 1)
    assert run.code == 0, run.err
    assert run.out == f"{target}\n"
    assert share_of_zeros(target) == pytest.approx(0.75, abs=1e-4)
    assert "BatchNorm re-estimated" in run.err
    assert "75.0 % zeros" in run.err
    zipped = len(zlib.compress(target.read_bytes(), 6))
    assert f"({zipped:,} zipped)" in run.err
    assert "Not timed" in run.err
    with Image.open(tmp_path / "sparse.sparsity.png") as picture:
        assert picture.format == "PNG"
    step = read_checkpoint(target).spec.lineage[-1]
    assert step.command == "sparsify"
    assert step.options["pattern"] == "unstructured"
    assert step.metrics["nonzero_parameters"] < 0.3 * step.metrics["parameters"]
    assert step.metrics["top1_percent_after_reestimation"] >= step.metrics["top1_percent_before_reestimation"]
    assert step.chosen_on is None
    assert not [name for name in read_checkpoint(target).state_dict if "mask" in name or "orig" in name]


def test_finetuning_from_the_parent_keeps_the_pattern(rcompress, trained, tmp_path):
    target = tmp_path / "nm.pth"
    words = ("--nm", "2:4", "--finetune-epochs", 1, "-b", 64, "--lr", 0.02, "--threads", 1, "--json")
    run = rcompress("sparsify", trained, *words, "-o", target)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["metrics"]["top1_percent"] > 90
    for name, weight in weights_of(target).items():
        if name != "conv1.weight":
            blocks = weight.movedim(1, -1).reshape(-1, 4)
            assert torch.all(blocks.count_nonzero(dim=1) <= 2), name
    assert not torch.equal(weights_of(target)["fc.weight"], weights_of(trained)["fc.weight"])
    step = read_checkpoint(target).spec.lineage[-1]
    assert step.options["distillation"]["teachers"] == [step.parent_sha256]
    assert step.chosen_on == "validation"
    assert told["layers"][0]["reason"].startswith("its 3 input channels")
    assert not target.with_suffix(".resume").exists()


def test_sparsity_that_grows(rcompress, trained, tmp_path):
    target = tmp_path / "grown.pth"
    words = ("--sparsity", 0.8, "--schedule", "cubic", "--finetune-epochs", 1, "-b", 64, "--no-distill")
    run = rcompress("sparsify", trained, *words, "--threads", 1, "-o", target)
    assert run.code == 0, run.err
    assert share_of_zeros(target) == pytest.approx(0.8, abs=1e-3)


def test_equal_outputs_in_a_fresh_process_and_every_way_on(rcompress, trained, tmp_path):
    target = tmp_path / "filters.pth"
    assert rcompress("sparsify", trained, "--filters", 0.3, "-o", target, "-q").code == 0
    module = load_model(target).module.eval()
    subprocess.run([sys.executable, "-c", FRESH, target, tmp_path / "logits.pt"], check=True)
    torch.manual_seed(1)
    with torch.no_grad():
        here = module(torch.randn(2, 3, 32, 32))
    assert torch.equal(here, torch.load(tmp_path / "logits.pt", weights_only=True))
    onnx = tmp_path / "filters.onnx"
    assert rcompress("export", target, "-o", onnx).code == 0
    zeros = graph_weights(read_onnx(onnx).model)
    assert zeros.sparsity_percent > 25  # BatchNorm folded into the weights leaves zeros zero
    for engine in ("filters.xml", "filters-int8.onnx"):
        words = ("--int8", "--calib", "digits:64") if "int8" in engine else ()
        built = rcompress(
            "build-engine", onnx, "-o", tmp_path / engine, *words, *(("--no-verdict",) if words else ())
        )
        assert built.code == 0, built.err
        assert rcompress("predict", tmp_path / engine, _picture(tmp_path)).code == 0


def _picture(folder: Path) -> Path:
    path = folder / "picture.png"
    content = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(content, "PNG")
    path.write_bytes(content.getvalue())
    return path


def test_speed_is_measured_on_every_engine(rcompress, trained, tmp_path):
    run = rcompress(
        "sparsify", trained, "--sparsity", 0.5, "--bench", "--threads", 1, "--json", "-o", tmp_path / "s.pth"
    )
    speeds = json.loads(run.out)["speed"]
    assert {"onnxruntime", "openvino"} <= {speed["backend"] for speed in speeds}
    for speed in speeds:
        assert speed["dense_ms"] > 0
        assert speed["speedup_low"] <= speed["speedup"] <= speed["speedup_high"]
        assert f"{speed['backend']}: {speed['dense_ms']:.3f} ms dense" in run.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give one of the three"),
        (("--sparsity", 0.5, "--nm", "2:4"), "give one of the three"),
        (("--sparsity", 1.5), "not between 0 and 1"),
        (("--nm", "4:2"), "no pattern"),
        (("--nm", "2:4", "--scope", "layer"), "go with --sparsity"),
        (("--nm", "2:4", "--linear"), "go with --filters"),
        (("--sparsity", 0.5, "--schedule", "cubic"), "name its length"),
        (("--sparsity", 0.5, "--lr", 0.1), "name its length"),
    ],
)
def test_wrong_usage(rcompress, tmp_path, words, said):
    run = rcompress("sparsify", tmp_path / "any.pth", *words)
    assert run.code == 2
    assert said in " ".join(run.err.replace("│", " ").split())


def test_bad_files(rcompress, trained, tmp_path):
    missing = rcompress("sparsify", tmp_path / "no.pth", "--sparsity", 0.5)
    assert (missing.code, missing.out) == (1, "")
    assert "no such file" in missing.err
    unknown = rcompress(
        "sparsify", trained, "--sparsity", 0.5, "--ignore", "nowhere", "-o", tmp_path / "x.pth"
    )
    assert unknown.code == 1
    assert "no layer 'nowhere'" in unknown.err
    assert not (tmp_path / "x.pth").exists()


def test_a_file_that_names_no_data(rcompress, tmp_path):
    source = tiny_checkpoint(tmp_path / "tiny.pth")
    run = rcompress("sparsify", source, "--sparsity", 0.5)
    assert run.code == 0, run.err
    assert "BatchNorm's statistics stay as they were: tiny.pth names no dataset" in run.err
    made = tmp_path / "tiny-sparse50.pth"
    assert share_of_zeros(made) == pytest.approx(0.5, abs=1e-4)
    assert read_checkpoint(made).spec.lineage[-1].options["bn_reestimation"] is False
    tuned = rcompress("sparsify", source, "--sparsity", 0.5, "--finetune-epochs", 1)
    assert (tuned.code, "names no dataset" in tuned.err) == (1, True)
