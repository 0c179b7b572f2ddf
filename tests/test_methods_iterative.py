"""Pruning in steps: widths, checkpoints, the log, and what a kill -9 leaves to go on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_net import ARCH

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.methods.iterative import IterativePlan, log_paths, prune_iteratively, step_path
from rcompress.methods.prune import PruneOptions
from rcompress.models import load_model
from rcompress.training import Recipe, Settings, run_training
from rcompress.training.run import write_trained
from rcompress.training.start import fresh, from_checkpoint

CPU = Settings(torch.device("cpu"))
SHORT = Recipe(epochs=1, batch_size=128, learning_rate=0.02, ema=0)
STEPS = 3
UNSCORED = "small_net:unscored"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A network of 16 and 16 channels, trained on digits for an epoch."""
    path = tmp_path_factory.mktemp("iterative") / "net.pth"
    start = fresh(ARCH, {}, open_dataset("digits"), 0)
    outcome = run_training(start.module, start.spec, start.dataset, SHORT, CPU, path, {})
    write_trained(path, "train", start.spec, outcome, {}, {})
    return path


def pruned(source, output, resume=False, ratio=0.5, **changes):
    plan = IterativePlan(PruneOptions(ratio, round_to=1, **changes), STEPS, SHORT)
    start = from_checkpoint(source, ARCH)
    return prune_iteratively(start, plan, CPU, output, resume, ARCH)


def widths(path):
    module = load_model(path, ARCH).module
    return module.conv1.out_channels, module.conv2.out_channels


def assert_whole(rows, output):
    """Every step once, in both logs, as its checkpoint says; the last is the output."""
    as_csv, as_json = log_paths(output)
    lines = [json.loads(line) for line in as_json.read_text().splitlines()]
    assert lines == rows or not rows
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    with as_csv.open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["step"] for row in table] == [str(line["step"]) for line in lines]
    for line in lines:
        path = step_path(output, line["step"], STEPS)
        step = read_checkpoint(path).spec.lineage[-1]
        assert (line["checkpoint"], line["size_bytes"]) == (path.name, path.stat().st_size)
        assert line["parameters"] == step.metrics["parameters"]
        assert line["test_top1_percent"] == step.metrics["top1_percent"]
        assert (line["validation_split"], line["test_split"]) == ("validation", "test")
    assert output.read_bytes() == step_path(output, STEPS, STEPS).read_bytes()
    assert not list(output.parent.glob("*.resume"))


@pytest.mark.parametrize(("scope", "expected"), [("local", [(12, 12), (10, 10), (8, 8)]), ("global", None)])
def test_each_step_takes_the_same_share_of_what_is_left(source, tmp_path, scope, expected):
    output = tmp_path / "out.pth"
    rows = pruned(source, output, scope=scope)
    found = [widths(step_path(output, number, STEPS)) for number in (1, 2, 3)]
    if expected:  # 16 * 0.5 ** (k / 3), rounded down
        assert found == expected
    else:
        assert [sum(pair) for pair in found] == pytest.approx([25, 20, 16], abs=1)
    assert_whole(rows, output)
    parents = [read_checkpoint(step_path(output, n, STEPS)).spec.lineage[-1].parent_name for n in (1, 2, 3)]
    assert parents == ["net.pth", "out-step01.pth", "out-step02.pth"]
    assert rows[0]["parameters"] > rows[1]["parameters"] > rows[2]["parameters"]


def test_rounding_does_not_add_up_over_the_steps(source, tmp_path):
    plan = IterativePlan(PruneOptions(0.5, round_to=8), 2, SHORT)
    prune_iteratively(from_checkpoint(source, ARCH), plan, CPU, tmp_path / "out.pth", own_arch=ARCH)
    assert widths(tmp_path / "out-step01.pth") == (8, 8)  # 11.3 is nearer to 8 than to 16
    assert widths(tmp_path / "out.pth") == (8, 8)


def test_channels_without_scores_are_no_share_of_what_is_to_go(tmp_path):
    """bn-scale knows nothing of a linear layer's outputs: half of the convolution's channels go, not nearly all."""
    start = fresh(UNSCORED, {}, open_dataset("digits"), 0)
    torch.nn.init.uniform_(start.module[1].weight, 0.5, 1.5)
    options = PruneOptions(0.5, "bn-scale", round_to=1, scope="global")
    plan = IterativePlan(options, 2, SHORT)
    output = tmp_path / "out.pth"
    prune_iteratively(start, plan, CPU, output, own_arch=UNSCORED)
    first, last = (read_checkpoint(step_path(output, n, 2)).state_dict["0.weight"] for n in (1, 2))
    assert (len(first), len(last)) == (12, 8)


def test_steps_that_would_remove_nothing_are_refused_before_training(source, tmp_path):
    plan = IterativePlan(PruneOptions(0.1, round_to=16), 3, SHORT)
    with pytest.raises(RcompressError, match="no layer loses a channel"):
        prune_iteratively(from_checkpoint(source, ARCH), plan, CPU, tmp_path / "out.pth", own_arch=ARCH)
    assert not list(tmp_path.iterdir())


def test_done_steps_are_not_done_again(source, tmp_path):
    output = tmp_path / "out.pth"
    rows = pruned(source, output)
    times = [step_path(output, number, STEPS).stat().st_mtime_ns for number in (1, 2, 3)]
    step_path(output, 3, STEPS).unlink()
    again = pruned(source, output, resume=True)
    assert [row["sha256"] for row in again[:2]] == [row["sha256"] for row in rows[:2]]
    assert [step_path(output, n, STEPS).stat().st_mtime_ns for n in (1, 2)] == times[:2]
    assert_whole(again, output)


def test_the_state_of_a_done_step_goes(source, tmp_path):
    output = tmp_path / "out.pth"
    pruned(source, output)
    step_path(output, 3, STEPS).unlink()
    step_path(output, 1, STEPS).with_suffix(".resume").write_bytes(b"left by a kill")
    assert_whole(pruned(source, output, resume=True), output)


def test_steps_of_an_older_run_are_made_anew(source, tmp_path):
    output = tmp_path / "out.pth"
    pruned(source, output)
    stale = step_path(output, 2, STEPS).read_bytes()
    step_path(output, 1, STEPS).unlink()
    assert_whole(pruned(source, output, resume=True), output)
    assert step_path(output, 2, STEPS).read_bytes() != stale


def test_another_runs_steps_are_refused(source, tmp_path):
    pruned(source, tmp_path / "out.pth")
    with pytest.raises(RcompressError, match=r"out-step01\.pth: belongs to a run with other options"):
        pruned(source, tmp_path / "out.pth", resume=True, importance="l1")


def launch(source, output, *more):
    """The command as a process of its own."""
    words = ["--ratio", 0.5, "--steps", STEPS, "--finetune-epochs", 3, "-b", 64, "--round-to", 1]
    command = [
        sys.executable,
        "-m",
        "rcompress",
        "prune",
        source,
        *words,
        "--arch",
        ARCH,
        "-o",
        output,
        *more,
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(process, there):
    """kill -9 as soon as ``there()``."""
    while not there():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("where", ["boundary", "middle"])
def test_a_killed_run_goes_on_at_its_step(source, tmp_path, where):
    output = tmp_path / "out.pth"
    second = step_path(output, 2, STEPS)
    wanted = step_path(output, 1, STEPS) if where == "boundary" else second.with_suffix(".resume")
    kill_when(launch(source, output), wanted.exists)
    assert not output.exists()
    first = step_path(output, 1, STEPS).read_bytes()
    process = launch(source, output, "--resume")
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert step_path(output, 1, STEPS).read_bytes() == first
    assert "step 1 of 3" not in said
    assert ("resuming after epoch" in said) == (where == "middle")
    assert_whole([], output)
    assert widths(output) == (8, 8)


def test_the_named_recipe(rcompress, source, tmp_path):
    output = tmp_path / "out.pth"
    words = ("--recipe", "iterative-10", "--steps", 2, "--finetune-epochs", 1, "--round-to", 1)
    run = rcompress("prune", source, *words, "--arch", ARCH, "-o", output, "--json")
    assert run.code == 0, run.err
    assert "step  2" in run.err
    rows = json.loads(run.out)["steps"]
    assert [widths(tmp_path / row["checkpoint"]) for row in rows] == [(14, 14), (12, 12)]
    chosen = read_checkpoint(output).spec.lineage[-1].options
    assert chosen["finetune"]["learning_rate"] == 1e-4
    assert chosen["distillation"]["teachers"] == [read_checkpoint(source).sha256]
    assert chosen["ratio"] == pytest.approx(1 - 0.9**2)


def test_steps_need_a_finetuning(rcompress, tmp_path):
    refused = rcompress("prune", tmp_path / "any.pth", "--ratio", 0.5, "--steps", 3)
    assert refused.code == 2
    assert "--finetune-epochs" in refused.err
