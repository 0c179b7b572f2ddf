"""``rcompress factorize`` as a user meets it, and what every other command makes of its files."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest
import torch
from test_cli_sparsify import FRESH
from tiny import tiny_checkpoint

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.measure.complexity import module_complexity
from rcompress.models import load_model
from rcompress.training.journal import Journal

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def halved(trained, tmp_path_factory):
    """The trained network at half of its MACs, without another look at data."""
    from rcompress.artifacts.checkpoint import write_checkpoint
    from rcompress.methods.factorize import FactorizeOptions, factorize

    loaded = load_model(trained)
    report = factorize(loaded.module, SIZE, FactorizeOptions(ratio=0.5))
    path = tmp_path_factory.mktemp("halved") / "half.pth"
    return write_checkpoint(path, report.described(loaded.spec), loaded.module.state_dict())


@torch.no_grad()
def logits(path):
    torch.manual_seed(1)
    return load_model(path).module.eval()(torch.randn(2, *SIZE))


def test_a_file_that_says_all_of_itself(rcompress, trained, tmp_path):
    target = tmp_path / "half.pth"
    words = ("--ratio", 0.5, "--scheme", "tucker", "--ignore", "fc", "--threads", 1, "--json")
    run = rcompress("factorize", trained, *words, "-o", target)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    module = load_model(target).module
    counted = module_complexity(module, SIZE)
    assert (told["metrics"]["parameters"], told["metrics"]["macs"]) == (counted.parameters, counted.macs)
    assert told["size_bytes"] == target.stat().st_size < 0.7 * trained.stat().st_size
    rows = {row["name"]: row for row in told["layers"]}
    assert rows["fc"]["reason"] == "is to be left alone (--ignore)"
    assert rows["layer3.2.conv2"]["scheme"] == "tucker"
    assert rows["layer3.0.downsample.0"]["scheme"] == "channel"
    assert len(module.layer3[2].conv2) == 3
    assert "fc                     left as it is: is to be left alone (--ignore)" in run.err
    assert f"-> {counted.macs:,} (" in run.err
    assert "BatchNorm re-estimated" in run.err
    step = read_checkpoint(target).spec.lineage[-1]
    assert (step.command, step.chosen_on, step.parent_name) == ("factorize", None, trained.name)
    assert step.options["ratio"] == 0.5
    assert step.notes == ("fc is left as it is: is to be left alone (--ignore)",)
    assert {"top1_percent_before_reestimation", "factorized_layers"} <= set(step.metrics)
    assert torch.equal(logits(target), _in_a_fresh_process(target, tmp_path))


def _in_a_fresh_process(path, folder):
    subprocess.run([sys.executable, "-c", FRESH, path, folder / "logits.pt"], check=True)
    return torch.load(folder / "logits.pt", weights_only=True)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--rank", 16), "net-rank16.pth"),
        (("--energy", 0.9), "net-energy90.pth"),
        (("--energy", 0.875, "--scheme", "spatial"), "net-energy87.5.pth"),
        (("--ratio", 0.5), "net-factorized50.pth"),
        (("--evbmf",), "net-evbmf.pth"),
    ],
)
def test_names_that_are_derived(rcompress, tmp_path, words, name):
    """An untrained network, whose file names no data: nothing is measured anew, and it is said."""
    source = tiny_checkpoint(tmp_path / "net.pth")
    run = rcompress("factorize", source, *words)
    assert run.code == 0, run.err
    assert run.out == f"{tmp_path / name}\n"
    assert "BatchNorm's statistics stay as they were" in run.err
    assert logits(tmp_path / name).shape == (2, 10)


def test_what_rounding_makes_of_a_ratio_is_said(rcompress, tmp_path):
    source = tiny_checkpoint(tmp_path / "net.pth")
    run = rcompress("factorize", source, "--ratio", 0.5, "--round-to", 16, "--json")
    rows = [row for row in json.loads(run.out)["layers"] if row["reason"] is None]
    removed = 1 - sum(row["macs"][1] for row in rows) / sum(row["macs"][0] for row in rows)
    assert abs(removed - 0.5) > 0.01
    assert (
        f"{removed:.1%} of those layers' MACs are gone, not 50.0%: ranks stay at multiples of 16" in run.err
    )
    assert (
        "MACs are gone"
        not in rcompress(
            "factorize", source, "--ratio", 0.5, "--round-to", 1, "-o", tmp_path / "exact.pth"
        ).err
    )
    refused = rcompress("factorize", source, "--rank", 4, "--round-to", 8)
    assert (refused.code, "--rank says it all" in refused.err) == (2, True)


def test_finetuning_learns_from_the_whole_network(rcompress, trained, tmp_path):
    target = tmp_path / "low.pth"
    words = (
        "--rank",
        8,
        "--scheme",
        "channel",
        "--finetune-epochs",
        1,
        "-b",
        64,
        "--lr",
        0.02,
        "--threads",
        1,
    )
    run = rcompress("factorize", trained, *words, "-o", target)
    assert run.code == 0, run.err
    spec = read_checkpoint(target).spec
    step = spec.lineage[-1]
    assert step.metrics["top1_percent"] > 90
    assert step.metrics["train_seconds"] == step.metrics["epoch_seconds"] > 0
    assert 2**26 < step.metrics["train_peak_memory_bytes"] < psutil.virtual_memory().total
    assert step.options["distillation"]["teachers"] == [step.parent_sha256]
    assert step.chosen_on == "validation"
    assert step.metrics["parameters"] == module_complexity(load_model(target).module, SIZE).parameters
    assert not target.with_suffix(".resume").exists()


def test_an_interrupted_run_goes_on_to_the_same_weights(rcompress, tmp_path, monkeypatch):
    source, whole, resumed = (tmp_path / f"{name}.pth" for name in ("net", "whole", "resumed"))
    arch = ("--arch", "small_net:wide", "--threads", 1, "-q")
    learn = ("train", "--dataset", "digits", "--epochs", 1, "-b", 64, "--lr", 0.05, *arch)
    assert rcompress(*learn, "-o", source).code == 0
    words = ("factorize", source, "--rank", 4, "--finetune-epochs", 2, "-b", 64, *arch)
    assert rcompress(*words, "-o", whole).code == 0
    write = Journal.write

    def stop_after(journal, trainer):
        write(journal, trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", stop_after)
        assert rcompress(*words, "-o", resumed).code == 130
    assert resumed.with_suffix(".resume").exists()
    other = rcompress(*words[:3], 5, *words[4:], "--resume", "-o", resumed)
    assert (other.code, "belongs to a run with other options" in other.err) == (1, True)
    assert rcompress(*words, "--resume", "-o", resumed).code == 0
    states = [read_checkpoint(path).state_dict for path in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pruned_factorized_again_sparse_clustered_and_back(rcompress, halved, tmp_path):
    """Each step reads the file before it; the inner ranks are cut by prune, the factors split once more."""
    pruned, nested, both = (tmp_path / name for name in ("pruned.pth", "nested.pth", "both.pth"))
    words = ("--ratio", 0.25, "--round-to", 1, "--no-bn-reestimation", "-q")
    assert rcompress("prune", halved, *words, "-o", pruned).code == 0
    inner = [load_model(path).module.layer3[2].conv2[0].out_channels for path in (halved, pruned)]
    assert inner[1] == round(0.75 * inner[0])
    assert (
        rcompress("factorize", pruned, "--ratio", 0.3, "--no-bn-reestimation", "-q", "-o", nested).code == 0
    )
    assert len(load_model(nested).module.layer3[2].conv2[0]) == 2
    assert len(read_checkpoint(nested).spec.transforms) == 2
    assert rcompress("prune", nested, *words, "-o", both).code == 0
    assert logits(both).isfinite().all()
    for verb, *extra in (
        ("sparsify", "--sparsity", 0.5, "--no-bn-reestimation"),
        ("cluster", "--clusters", 16),
    ):
        made = tmp_path / f"{verb}.pth"
        assert rcompress(verb, both, *extra, "-q", "-o", made).code == 0
        assert logits(made).shape == (2, 10)


def test_dead_ranks_go_without_a_trace(rcompress, halved, tmp_path):
    from rcompress.artifacts.checkpoint import write_checkpoint

    loaded = load_model(halved)
    for part in (loaded.module.layer1[0].conv1[0], loaded.module.layer3[2].conv2[0]):
        part.weight.data[1::2] = 0
    source = write_checkpoint(tmp_path / "dead.pth", loaded.spec, loaded.module.state_dict())
    target = tmp_path / "alive.pth"
    run = rcompress("prune", source, "--from-mask", "--round-to", 1, "-o", target)
    assert run.code == 0, run.err
    assert load_model(target).module.layer3[2].conv2[0].out_channels == 16
    torch.testing.assert_close(logits(target), logits(source), rtol=1e-4, atol=1e-5)


def test_exported_quantized_and_trained_on(rcompress, halved, tmp_path):
    onnx, int8 = tmp_path / "half.onnx", tmp_path / "half-int8.onnx"
    assert rcompress("export", halved, "-o", onnx, "-q").code == 0
    made = rcompress("quantize", onnx, "--calib", "digits:64", "-o", int8, "-q")
    assert made.code == 0, made.err
    run = rcompress("eval", int8, "--json", "-q", "-o", tmp_path / "int8.result.json", "--batch-size", 64)
    assert run.code == 0, run.err
    trained_on = tmp_path / "on.pth"
    words = ("--init", halved, "--epochs", 1, "--lr", 0.02, "-b", 64, "-q", "-o", trained_on)
    run = rcompress("train", *words)
    assert run.code == 0, run.err
    assert len(load_model(trained_on).module.layer3[2].conv2) == 2


def rewritten(path, target, transforms):
    content = torch.load(path, weights_only=True)
    content["model"]["transforms"] = transforms
    torch.save(content, target)
    return target


DEEP = {"name": "factorized", "layers": {f"conv1{'.0' * depth}": "channel" for depth in range(400)}}


@pytest.mark.parametrize(
    ("transforms", "said"),
    [
        ([], "Missing key(s)|Unexpected key(s)"),
        ([{"name": "folded"}], "unknown transform 'folded'"),
        ([{"name": "factorized"}], "names no layers"),
        ([{"name": "factorized", "layers": {"nowhere": "channel"}}], "nowhere"),
        ([{"name": "factorized", "layers": {"layer1.0": "channel"}}], "cannot be factorized"),
        ([{"name": "factorized", "layers": {"": "channel"}}], "cannot be factorized"),
        ([{"name": "factorized", "layers": {"fc": "spatial"}}], "cannot be factorized"),
        ([{"name": "factorized", "layers": {"conv1": ["channel"]}}], "cannot be factorized"),
        ([{"name": "factorized", "layers": {7: "channel"}}], "names a layer 7"),
        (
            [{"name": "factorized", "layers": {"conv1.__class__": "channel"}}],
            "`__class__` is not an nn.Module",
        ),
        (["factorized"], "transform is not a mapping"),
        ([DEEP], "do not make a resnet20"),
    ],
)
def test_files_that_lie(rcompress, halved, tmp_path, transforms, said):
    run = rcompress("export", rewritten(halved, tmp_path / "lie.pth", transforms))
    assert run.code == 1
    assert run.err.count("\n") == 1
    assert "lie.pth" in run.err
    assert any(part in run.err for part in said.split("|")), run.err
    assert not (tmp_path / "lie.onnx").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give one of the four"),
        (("--rank", 4, "--evbmf"), "give one of the four"),
        (("--rank", 0), "--rank"),
        (("--energy", 1.5), "1.5 is not between 0 and 1"),
        (("--rank", 4, "--scheme", "cp"), "--scheme"),
        (("--rank", 4, "--temperature", 3), "goes with fine-tuning"),
    ],
)
def test_wrong_usage(rcompress, trained, words, said):
    run = rcompress("factorize", trained, *words)
    assert run.code == 2
    assert said in run.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rank", 4, "--ignore", "nowhere"), "the network has no layer 'nowhere'"),
        (("--rank", 200), "no layer would become cheaper"),
        (("--rank", 4, "-o", "half.onnx"), "half.onnx"),
    ],
)
def test_faults_in_one_line(rcompress, tmp_path, words, said):
    source = tiny_checkpoint(tmp_path / "net.pth")
    run = rcompress("factorize", source, "--no-bn-reestimation", *words)
    assert (run.code, run.err.count("\n"), run.out) == (1, 1, ""), run.err
    assert said in run.err
    assert list(tmp_path.iterdir()) == [source]
