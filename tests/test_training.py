"""The training loop: recipes, resuming, honesty about splits."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.artifacts.device import resolve_device
from rcompress.artifacts.spec import Step
from rcompress.cli.output import Output
from rcompress.cli.session import say_scores
from rcompress.data import Augmentation, open_dataset
from rcompress.errors import RcompressError
from rcompress.training import RECIPES, Recipe, Settings, Trainer, resolve_precision
from rcompress.training import run as runs
from rcompress.training.average import MovingAverage
from rcompress.training.constraints import HoldMasks
from rcompress.training.guidance import Batch, Constraint, Guidance
from rcompress.training.loop import validate
from rcompress.training.recipe import build_optimizer, learning_rate_factor
from rcompress.training.run import material_for, run_training
from rcompress.training.start import fresh

CPU = Settings(torch.device("cpu"))
SHORT = Recipe(epochs=3, batch_size=64, learning_rate=0.05, ema=0.9, mixup=0.2, cutout=4)


class KilledError(Exception):
    """Stands for a kill between two epochs."""


@pytest.fixture(scope="module")
def small():
    """Digits cut down to what a few seconds can learn."""
    dataset = open_dataset("digits")
    split = dataset.split

    class Small(type(dataset)):
        def split(self, name):
            part = split(name)
            return part.subset(torch.arange(min(len(part), 192)))

    return Small(**vars(dataset))


def start_of(dataset):
    return fresh("resnet20", {}, dataset, seed=3)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step"])
def test_learning_rate_schedules(schedule):
    recipe = Recipe(schedule=schedule, warmup=0.2)
    factors = [learning_rate_factor(recipe, step / 100) for step in range(101)]
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] <= 0.011
    if schedule == "step":
        assert [factors[0], factors[60], factors[80]] == pytest.approx([1.0, 0.1, 0.01])
    else:
        assert factors[10] == pytest.approx(0.5)
        assert factors[60] == pytest.approx(
            0.5 if schedule == "onecycle" else 0.5 * (1 + math.cos(math.pi / 2))
        )


def test_only_weights_are_decayed():
    module = start_of(open_dataset("digits")).module
    decayed, free = build_optimizer(RECIPES["default"], module).param_groups
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0.0)


def test_moving_average_is_the_recurrence():
    module = torch.nn.BatchNorm1d(2)
    average = MovingAverage(module, 0.5)
    expected = module.weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            module.weight.fill_(float(step))
        average.update()
        decay = min(0.5, step / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.module.weight.detach(), expected)


def test_training_learns_and_keeps_the_best_validation_epoch(trained):
    read = read_checkpoint(trained)
    metrics = read.spec.lineage[-1].metrics
    rows = [json.loads(line) for line in trained.with_suffix(".log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert metrics["validation_top1_percent"] == max(row["validation_top1_percent"] for row in rows)
    assert rows[metrics["best_epoch"] - 1]["validation_top1_percent"] == metrics["validation_top1_percent"]
    assert read.spec.lineage[-1].chosen_on == "validation"
    assert trained.with_suffix(".curves.png").read_bytes().startswith(b"\x89PNG")
    assert not trained.with_suffix(".resume").exists()


def learned(log):
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [(row["epoch"], row["train_loss"], row["validation_loss"]) for row in rows]


def test_a_killed_run_resumes_to_the_same_weights(small, tmp_path, monkeypatch):
    def run(output, resume=False):
        start = start_of(small)
        return run_training(
            start.module, start.spec, small, SHORT, CPU, output, {}, resume
        ).module.state_dict()

    whole = run(tmp_path / "whole.pth")
    original = Trainer._train_epoch

    def killed(self, number, progress):
        if number == 3:
            raise KilledError
        return original(self, number, progress)

    monkeypatch.setattr(Trainer, "_train_epoch", killed)
    with pytest.raises(KilledError):
        run(tmp_path / "killed.pth")
    monkeypatch.setattr(Trainer, "_train_epoch", original)
    torch.manual_seed(999)
    resumed = run(tmp_path / "killed.pth", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [learned(tmp_path / f"{name}.log.jsonl") for name in ("whole", "killed")]
    assert [epoch for epoch, *_ in logs[1]] == [1, 2, 3]
    assert logs[0] == logs[1]  # the last epoch too, though an earlier one may have been the best


def test_another_runs_state_is_refused(small, tmp_path):
    start = start_of(small)
    one = Recipe(epochs=1, batch_size=96)
    run_training(start.module, start.spec, small, one, CPU, tmp_path / "m.pth", {})
    with pytest.raises(RcompressError, match="other options"):
        run_training(start.module, start.spec, small, SHORT, CPU, tmp_path / "m.pth", {}, resume=True)
    others = ((replace(CPU, seed=1), Guidance()), (CPU, Guidance(constraints=(HoldMasks({}),))))
    for settings, guidance in others:
        with pytest.raises(RcompressError, match="other options"):
            run_training(
                start.module,
                start.spec,
                small,
                one,
                settings,
                tmp_path / "m.pth",
                {},
                resume=True,
                guidance=guidance,
            )


def test_a_state_in_another_format_is_refused(small, tmp_path):
    start = start_of(small)
    run_training(start.module, start.spec, small, SHORT, CPU, tmp_path / "m.pth", {})
    state = torch.load(tmp_path / "m.resume", weights_only=True)
    torch.save({**state, "format": "rcompress-resume/1"}, tmp_path / "m.resume")
    with pytest.raises(RcompressError, match=r"m\.resume: is no state of a run of this rcompress"):
        run_training(start.module, start.spec, small, SHORT, CPU, tmp_path / "m.pth", {}, resume=True)


@pytest.mark.parametrize("name", ["momentum", "warmup", "label_smoothing", "ema"])
def test_recipes_out_of_range_are_refused(name):
    with pytest.raises(RcompressError, match=f"{name} = 1.5"):
        Recipe(**{name: 1.5})


def test_a_diverging_run_says_so(small, tmp_path):
    start = start_of(small)
    wild = Recipe(epochs=3, batch_size=32, learning_rate=1e9, warmup=0.0, ema=0.0)
    with pytest.raises(RcompressError, match="lower --learning-rate"):
        run_training(start.module, start.spec, small, wild, CPU, tmp_path / "m.pth", {})


def test_batches_of_one_are_refused(small, tmp_path):
    start = start_of(small)
    one = Recipe(epochs=1, batch_size=1)
    with pytest.raises(RcompressError, match="two images"):
        run_training(start.module, start.spec, small, one, CPU, tmp_path / "m.pth", {})


def test_bf16_trains_where_it_is_chosen(small, tmp_path):
    start = start_of(small)
    bf16 = Settings(torch.device("cpu"), "bf16")
    outcome = run_training(
        start.module, start.spec, small, Recipe(epochs=1, batch_size=64), bf16, tmp_path / "m.pth", {}
    )
    assert all(parameter.dtype == torch.float32 for parameter in outcome.module.parameters())
    assert math.isfinite(outcome.history[0]["train_loss"])


def test_imported_networks_are_judged_where_they_were_not_chosen(small):
    spec = replace(start_of(small).spec, lineage=(Step("import"),))
    dataset = open_dataset("digits")
    material = material_for(spec, dataset)
    assert torch.equal(material.validation.indices, dataset.split("test-a").indices)


def test_what_chose_an_epoch_does_not_report_it(small):
    start, digits = start_of(small), open_dataset("digits")
    imported = replace(start.spec, lineage=(Step("import"),))
    half = validate(start.module, digits.split("test-b"), imported.preprocessing, CPU)
    assert runs.test_scores(start.module, imported, digits, CPU, chosen=True).loss == half.loss
    assert runs.test_scores(start.module, imported, digits, CPU, chosen=False).images == 500
    assert runs.test_scores(start.module, start.spec, digits, CPU, chosen=True).images == 500


def trainer_of(small, recipe=SHORT, guidance=Guidance()):
    start = start_of(small)
    return Trainer(start.module, material_for(start.spec, small), recipe, CPU, guidance)


def test_every_step_has_its_rate(small):
    seen = []

    class Seen(Constraint):
        def after_step(self, module):
            seen.append([group["lr"] for group in trainer.optimizer.param_groups])

    def groups(module):
        return [{"params": [module.fc.weight], "lr_scale": 0.1}, {"params": [module.fc.bias]}]

    trainer = trainer_of(small, replace(SHORT, epochs=2), Guidance(None, (Seen(),), groups))
    trainer.run(lambda _: None)
    rates = [0.05 * learning_rate_factor(SHORT, step / 6) for step in range(6)]
    assert [whole for _, whole in seen] == pytest.approx(rates)
    assert [tenth for tenth, _ in seen] == pytest.approx([rate / 10 for rate in rates])


def test_a_batch_is_what_the_recipe_says(small):
    labels, where = torch.arange(64) % 10, torch.arange(64)
    nowhere = torch.zeros(64, dtype=torch.bool)
    themselves = F.one_hot(labels, 10).float().view(64, 10, 1, 1)  # images that are their own labels
    mixed = trainer_of(small)._batch(themselves, labels, where, nowhere, where, 1)
    torch.testing.assert_close(mixed.targets, mixed.inputs.flatten(1))
    assert not torch.equal(mixed.inputs, themselves)
    smooth = trainer_of(small, replace(SHORT, mixup=0.0, label_smoothing=0.1))
    logits, plain = torch.randn(64, 10), Batch(themselves, labels, labels, where, nowhere, 1)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(smooth._loss(logits, plain), expected)
    turned = trainer_of(replace(small, augmentation=Augmentation(flip=True)))
    assert torch.equal(turned._mirrored(where, 1), ~turned._mirrored(where, 2))


def test_the_best_epoch_before_a_kill_is_kept(small):
    states = []

    def killed(trainer):
        states.append(copy.deepcopy(trainer.state()))
        raise KilledError

    with pytest.raises(KilledError):
        trainer_of(small).run(killed)
    states[0]["best"]["top1_percent"] = 101.0  # nothing later is better
    again = trainer_of(small)
    again.restore(states[0])
    kept = again.run(lambda _: None).state_dict()
    assert again.best.epoch == 1
    assert all(torch.equal(kept[name], tensor) for name, tensor in states[0]["best"]["state"].items())


def test_devices_and_precisions():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"
    for name in ("gpu", "mps:0", "cuda:99"):
        with pytest.raises(RcompressError, match=name):
            resolve_device(name)
    with pytest.raises(RcompressError, match="GPUs only"):
        resolve_precision("fp16", torch.device("cpu"))


def test_the_splits_that_chose_and_report_are_named(small, tmp_path, capsys):
    start = start_of(small)
    imported = replace(start.spec, lineage=(Step("import"),))
    recipe = Recipe(epochs=1, batch_size=256)
    out = Output()
    outcome = run_training(
        start.module, imported, open_dataset("digits"), recipe, CPU, tmp_path / "m.pth", {}, progress=out
    )
    say_scores(out, outcome)
    first, last = capsys.readouterr().err.splitlines()
    assert "test-a" in first and "validation" not in first
    assert "% on test-b (" in last and "by test-a" in last
