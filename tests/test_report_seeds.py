"""What chance alone does, told where artifacts differ by their seeds alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import reporting
import torch

from rcompress.cli.finetuning import Finetuning
from rcompress.report.build import build_report
from rcompress.training import Settings


def student(seed: int, top1: float, teacher: str = "t.pth", **context: object):
    made = reporting.evaluated(f"{teacher[0]}{seed}.pth", top1, sha256=f"{teacher}{seed}")
    steps = [
        {"command": "distill", "options": {"teacher": teacher, "seed": seed}, "metrics": {"loss": top1}},
        {"command": "export", "parent_sha256": str(seed), "options": {}},
    ]
    return replace(made, lineage=steps, context={**made.context, **context})


def test_mean_and_spread_of_those_that_differ_by_their_seeds():
    records = [student(0, 90.0), student(1, 91.0), student(2, 89.0), student(0, 80.0, teacher="other.pth")]
    notes = build_report(records).notes
    assert [note for note in notes if "seed" in note] == [
        "t0.pth, t1.pth, t2.pth: the same but for the seed, top-1 90.00 ± 1.00 % (mean and standard deviation of 3)"
    ]


def trained(seed: int, top1: float, parameters: int, **told: object):
    made = reporting.evaluated(f"n{seed}.pth", top1)
    made.metrics["parameters"] = parameters
    options = {"epochs": 3, "seed": seed, **told}
    return replace(made, lineage=[{"command": "train", "options": options}])


def test_other_networks_are_no_family():
    def notes(*records):
        return build_report(records).notes

    assert notes(trained(0, 90.0, 100, arch="resnet20"), trained(1, 91.0, 200, arch="resnet56")) == []
    assert notes(trained(0, 90.0, 100), trained(1, 91.0, 200)) == []  # before their steps told it
    assert len(notes(trained(0, 90.0, 100), trained(1, 91.0, 100))) == 1
    pruned = (trained(seed, 90.0 + seed, 100 + seed, arch="resnet20", training_seed=seed) for seed in (0, 1))
    assert len(notes(*pruned)) == 1  # to one target, each in its own way
    trainings = (trained(0, 90.0 + seed, 100, arch="resnet20", training_seed=seed) for seed in (0, 1))
    assert len(notes(*trainings)) == 1


def test_a_finetuning_tells_its_seed():
    told = Finetuning(1).details(Settings(torch.device("cpu"), "fp32", False, 3), None)
    assert told["seed"] == 3
    assert Finetuning(0).details(Settings(torch.device("cpu")), None) == {}


@pytest.mark.parametrize("change", [{"split": "test-a"}, {"images": 5}, {"backend": "openvino"}])
def test_other_conditions_are_not_averaged(change):
    assert build_report([student(0, 90.0), student(1, 91.0, **change)]).notes == []


def test_one_artifact_measured_twice_is_no_spread():
    notes = build_report([student(0, 90.0), replace(student(0, 91.0), kind="eval")]).notes
    assert not any("seed" in note for note in notes)
