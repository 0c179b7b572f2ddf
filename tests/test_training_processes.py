"""Two processes over gloo train what one trains; a dead one ends the job; the state goes on with another number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rcompress.errors import RcompressError
from rcompress.training.processes import Processes, synchronised, unsynchronised

PROGRAM = Path(__file__).with_name("several_processes.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(*words: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = TORCHRUN if processes == 2 else (sys.executable,)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[1])}
    return subprocess.run(
        [*launcher, *map(str, words)], capture_output=True, text=True, timeout=240, env=environment
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process trains."""
    output = tmp_path_factory.mktemp("alone") / "net.pth"
    done = start(PROGRAM, output, processes=1)
    assert done.returncode == 0, done.stderr
    return torch.load(output)


def assert_same(found, expected):
    for name, weights in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert ours["validation_top1_percent"] == pytest.approx(theirs["validation_top1_percent"], abs=1.0)
    assert found["scores"]["top1_percent"] == pytest.approx(expected["scores"]["top1_percent"], abs=1.0)


def test_two_processes_train_what_one_trains(tmp_path, alone):
    done = start(PROGRAM, tmp_path / "net.pth")
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(tmp_path / "net.pth"), alone)


def test_a_dead_process_ends_the_job_and_one_goes_on(tmp_path, alone):
    output = tmp_path / "net.pth"
    assert start(PROGRAM, output, "dies").returncode != 0
    assert not output.exists()
    assert (tmp_path / "net.resume").exists()
    assert len((tmp_path / "net.log.jsonl").read_text().splitlines()) == 1
    done = start(PROGRAM, output, processes=1)
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(output), alone)


def test_the_command_speaks_and_writes_once(tmp_path):
    output = tmp_path / "r20.pth"
    words = ("train", "--arch", "resnet20", "--dataset", "digits", "--epochs", "1", "-o", output, "--json")
    done = start("-m", "rcompress", *words)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["output"] == str(output)
    assert sum("epoch 1/1" in text for text in done.stderr.splitlines()) == 1
    assert start("-m", "rcompress", "inspect", output, processes=1).returncode == 0


def test_every_position_is_exactly_one_processs():
    shares = [Processes(rank, 3).share(10) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(10))


def test_a_batch_that_cannot_be_dealt_is_refused():
    with pytest.raises(RcompressError, match="multiple of 3"):
        Processes(0, 3).share_of_batch(128)


def test_synchronous_batchnorm_needs_gpus_and_becomes_plain_again():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    with pytest.raises(RcompressError, match="--sync-bn"):
        synchronised(network, torch.device("cpu"), Processes(0, 2))
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_()
    images = torch.randn(2, 3, 8, 8)
    expected = network.eval()(images)
    changed = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in changed.modules())
    plain = unsynchronised(changed)
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in plain.modules())
    torch.testing.assert_close(plain.eval()(images), expected)


def test_a_student_of_two_processes_is_written_with_its_teachers_score(trained, tmp_path):
    output = tmp_path / "student.pth"
    words = (
        "distill",
        "--teacher",
        trained,
        "--student",
        "resnet20",
        "--epochs",
        "1",
        "-o",
        output,
        "--json",
    )
    done = start("-m", "rcompress", *words)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["output"] == str(output)
    assert output.exists()
