"""What a growing penalty empties is what pruning takes, and taking it then costs nothing."""

from __future__ import annotations

import json

import pytest
import torch

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.errors import RcompressError
from rcompress.methods.doomed import doomed_channels
from rcompress.methods.prune import PruneOptions, prune
from rcompress.models import build_model

SIZE = (3, 32, 32)


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_the_doomed_are_what_prune_removes(shortcut):
    torch.manual_seed(0)
    module = build_model("resnet20", 10, shortcut=shortcut).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    options = PruneOptions(0.5)
    doomed = doomed_channels(module, SIZE, options)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert "fc.weight" not in doomed
    prune(module, SIZE, options)
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        kept = before[name][~doomed[name]] if name in doomed else before[name]
        assert len(parameter) == len(kept), name
        if parameter.dim() == 1 or name == "conv1.weight":  # no input channels went with it
            assert torch.equal(parameter, kept), name
    assert {"layer3.1.conv1.weight", "layer3.1.bn1.weight", "layer3.1.bn1.bias"} <= set(doomed)


def test_nothing_to_go_is_refused():
    with pytest.raises(RcompressError, match="no channel would go"):
        doomed_channels(build_model("resnet20", 10), SIZE, PruneOptions(0.01))


def test_train_empties_what_prune_then_takes(rcompress, tmp_path):
    words = ("--dataset", "digits", "--epochs", 3, "-b", 32, "--lr", 0.1, "--ema", 0, "--threads", 1, "-q")
    plain, ready, cut = (tmp_path / f"{name}.pth" for name in ("plain", "ready", "cut"))
    arch = ("--arch", "small_net:wide")
    assert rcompress("train", *arch, *words, "-o", plain).code == 0
    penalty = ("--sparsity-penalty", "growing", "--penalty-ratio", 0.5, "--penalty-strength", 3)
    run = rcompress("train", *arch, "--init", plain, *words[2:], *penalty, "-o", ready)
    assert run.code == 0, run.err
    step = read_checkpoint(ready).spec.lineage[-1]
    assert step.options["penalty"]["constraint"] == "growing"
    assert step.metrics["best_epoch"] == 3
    run = rcompress("prune", ready, "--ratio", 0.5, *arch, "--no-bn-reestimation", "-o", cut)
    assert run.code == 0, run.err
    top1 = {path: _top1(rcompress, path, tmp_path) for path in (ready, cut)}
    assert top1[cut] == pytest.approx(top1[ready], abs=2)
    without = tmp_path / "without.pth"
    rcompress("prune", plain, "--ratio", 0.5, *arch, "--no-bn-reestimation", "-o", without)
    assert top1[cut] > _top1(rcompress, without, tmp_path) + 10


def _top1(rcompress, path, folder):
    run = rcompress("eval", path, "--arch", "small_net:wide", "--json", "-o", folder / "record.result.json")
    assert run.code == 0, run.err
    return json.loads(run.out)["metrics"]["top1_percent"]


@pytest.mark.parametrize(
    "words",
    [
        ("--penalty-strength", 0.1),
        ("--sparsity-penalty", "growing"),
        ("--sparsity-penalty", "group-lasso", "--penalty-ratio", 0.5),
        ("--sparsity-penalty", "growing", "--penalty-ratio", 1.5),
    ],
)
def test_wrong_usage(rcompress, words):
    assert rcompress("train", "--arch", "resnet20", "--dataset", "digits", *words).code == 2
