"""Learning from teachers: soft targets against computations by hand, feature terms, resuming, the cache."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rcompress.artifacts.checkpoint import read_checkpoint, write_checkpoint
from rcompress.artifacts.onnx_file import read_onnx
from rcompress.data import Augmentation, normalize, open_dataset
from rcompress.errors import RcompressError
from rcompress.models import load_model
from rcompress.training import Recipe, Settings, Trainer
from rcompress.training.distillation import LogitDistillation, confidence, softened
from rcompress.training.feature_distillation import EMBEDDING, Watch
from rcompress.training.feature_losses import attention_loss, relational_loss
from rcompress.training.guidance import Batch
from rcompress.training.lessons import Lesson, guidance_for
from rcompress.training.run import material_for, run_training
from rcompress.training.start import fresh
from rcompress.training.teacher_cache import cached_logits, without_crops
from rcompress.training.teachers import Teacher, open_teacher

CPU = Settings(torch.device("cpu"))
SHORT = Recipe(epochs=2, batch_size=64, learning_rate=0.05, ema=0.9)


class Said:
    """A teacher that says what it was given."""

    def __init__(self, answers):
        self.answers = answers

    def of(self, batch):
        return self.answers

    def identity(self):
        return {}


def batch_of(inputs, labels, targets=None):
    labels = torch.as_tensor(labels)
    where = torch.arange(len(labels))
    return Batch(inputs, labels, labels if targets is None else targets, where, where < 0, 1)


@pytest.fixture(scope="module")
def small():
    """Digits cut down to what a few seconds can learn."""
    dataset = open_dataset("digits")

    class Small(type(dataset)):
        def split(self, name):
            part = super().split(name)
            return part.subset(torch.arange(min(len(part), 128)))

    return Small(**vars(dataset))


def start_of(dataset):
    return fresh("resnet20", {}, dataset, seed=3)


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_soft_targets_by_hand():
    student, teacher, labels = (
        [[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]],
        [[2.0, 0.0, -1.0], [1.0, 1.5, 0.0]],
        [0, 2],
    )
    temperature, alpha = 4.0, 0.3
    soft = hard = 0.0
    for own, shown, label in zip(student, teacher, labels, strict=True):
        p, q = softmax(shown, temperature), softmax(own, temperature)
        soft += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
        hard -= math.log(softmax(own)[label]) / 2
    loss = LogitDistillation(Said(torch.tensor([teacher])), temperature, alpha)
    found = loss(torch.tensor(student), batch_of(torch.zeros(2), labels))
    assert float(found) == pytest.approx(alpha * temperature**2 * soft + (1 - alpha) * hard, rel=1e-5)


def test_a_student_that_says_the_same_has_no_gradient_from_its_teacher():
    logits = torch.randn(4, 5, requires_grad=True)
    LogitDistillation(Said(logits.detach()[None]), 3.0, 1.0)(logits, batch_of(logits, [0] * 4)).backward()
    assert logits.grad.abs().max() < 1e-6


def test_several_teachers():
    answers = torch.tensor([[[4.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 3.0]]])
    mean = softened(answers, 1.0, "mean", torch.tensor([0, 1]))
    expected = (torch.tensor(softmax([4.0, 0.0])) + torch.tensor(softmax([0.0, 2.0]))) / 2
    torch.testing.assert_close(mean[0], expected)
    weights = confidence(answers, torch.tensor([0, 1]))
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2))
    assert (
        weights[0, 0] > 0.85 > 0.5 < weights[1, 1]
    )  # the first is right about image 0, the second surer of 1
    leaning = softened(answers, 1.0, "confidence", torch.tensor([0, 1]))
    assert leaning[0, 0] > mean[0, 0]


@pytest.mark.parametrize(
    ("changes", "word"), [({"temperature": 0.0}, "--temperature"), ({"alpha": 1.5}, "--alpha")]
)
def test_values_out_of_range_are_refused(changes, word):
    with pytest.raises(RcompressError, match=word):
        LogitDistillation(Said(None), **changes)


class KilledError(Exception):
    """Stands for a kill between two epochs."""


def test_features_teach_and_a_killed_run_resumes(small, trained, tmp_path, monkeypatch):
    lesson = Lesson({"logits": None, "hints": None, "attention": None, "relational": None})

    def run(name, resume=False):
        start = start_of(small)
        teacher = open_teacher([trained], start.spec, CPU)
        guidance = guidance_for(lesson, teacher, SHORT, (3, 32, 32))
        done = run_training(
            start.module, start.spec, small, SHORT, CPU, tmp_path / name, {}, resume, guidance=guidance
        )
        return done, guidance.loss

    whole, distillation = run("whole.pth")
    assert distillation.pairs == (("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3"))
    assert (distillation.regressor.in_channels, distillation.regressor.out_channels) == (32, 32)
    original = Trainer._train_epoch

    def killed(self, number, progress):
        if number == 2:
            raise KilledError
        return original(self, number, progress)

    monkeypatch.setattr(Trainer, "_train_epoch", killed)
    with pytest.raises(KilledError):
        run("killed.pth")
    monkeypatch.setattr(Trainer, "_train_epoch", original)
    torch.manual_seed(999)
    resumed, again = run("killed.pth", resume=True)
    assert resumed.history[1]["train_loss"] == whole.history[1]["train_loss"]
    assert torch.equal(again.regressor.weight, distillation.regressor.weight)
    ours, theirs = resumed.module.state_dict(), whole.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_regressor_is_trained_and_every_term_counts(small, trained):
    start = start_of(small)
    teacher = open_teacher([trained], start.spec, CPU)
    found = {}
    for weight in (1e-9, 1.0):
        guidance = guidance_for(Lesson({"hints": weight}), teacher, SHORT, (3, 32, 32))
        torch.manual_seed(0)
        trainer = Trainer(start_of(small).module, material_for(start.spec, small), SHORT, CPU, guidance)
        before = guidance.loss.regressor.weight.detach().clone()
        found[weight] = trainer._train_epoch(1, _Deaf())[0]
        assert not torch.equal(before, guidance.loss.regressor.weight)
    assert found[1.0] > found[1e-9]


@pytest.mark.parametrize(
    ("term", "loss", "layers"),
    [
        ("attention", attention_loss, ["layer1", "layer2", "layer3"]),
        ("relational", relational_loss, [EMBEDDING]),
    ],
)
def test_terms_are_taken_of_their_layers(small, trained, term, loss, layers):
    def features(module):
        watch = Watch(module, layers)
        watch.on()
        module(inputs)
        return watch.off()

    start = start_of(small)
    student = start.module.eval()
    teacher = open_teacher([trained], start.spec, CPU)
    distillation = guidance_for(Lesson({term: 3.0}), teacher, SHORT, (3, 32, 32)).loss
    distillation.attach(student)
    images, labels = next(small.split("train").batches(16))
    inputs = normalize(images, start.spec.preprocessing)
    positions = torch.arange(16)
    batch = Batch(inputs, labels, labels, positions, torch.zeros(16, dtype=torch.bool), 1)
    distillation.before_step(student, 0.0)
    logits = student(inputs)
    found = distillation(logits, batch)
    own, shown = features(student), features(load_model(trained).module.eval())
    expected = 3.0 * sum(loss(own[layer], shown[layer]) for layer in layers)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels) + expected)


class _Deaf:
    def advance(self, *_, **__):
        pass


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_that_weigh_nothing_are_refused(weight):
    with pytest.raises(RcompressError, match="not above 0"):
        Lesson({"hints": weight})


def test_layers_by_name_and_names_that_are_wrong(small, trained):
    start = start_of(small)
    teacher = open_teacher([trained], start.spec, CPU)
    for pair, fits in (
        (("layer2", "layer3"), True),
        (("fc", "layer3"), False),
        (("layer1", "nowhere"), False),
    ):
        distillation = guidance_for(Lesson({"hints": None}, pairs=(pair,)), teacher, SHORT, (3, 32, 32)).loss
        if fits:
            distillation.attach(start.module)
            assert distillation.regressor.out_channels == 64
        else:
            with pytest.raises(RcompressError, match="feature maps"):
                distillation.attach(start.module)


def test_features_need_one_network_of_pytorch(trained):
    spec = load_model(trained).spec
    two = open_teacher([trained, trained], spec, CPU)
    with pytest.raises(RcompressError, match="one network"):
        guidance_for(Lesson({"attention": None}), two, SHORT, (3, 32, 32))


@pytest.mark.parametrize("mirrored", [False, True])
def test_cached_logits_are_what_the_teacher_says_of_each_batch(small, trained, tmp_path, mirrored):
    dataset = without_crops(replace(small, augmentation=Augmentation(crop_padding=2, flip=mirrored)))
    start = start_of(dataset)
    teacher = open_teacher([trained], start.spec, CPU)
    first = cached_logits(teacher, dataset, SHORT, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    silent = Teacher([replace(m, run=None) for m in teacher.members], start.spec, CPU)
    second = cached_logits(silent, dataset, SHORT, tmp_path)  # read, not asked again
    seen = []

    class Compared:
        def __call__(self, logits, batch):
            live = teacher.of(batch)
            for cached in (first, second):
                torch.testing.assert_close(cached.of(batch), live, rtol=1e-3, atol=1e-3)
            seen.append(batch.mirrored)
            return logits.sum() * 0

        def identity(self):
            return {}

    from rcompress.training.guidance import Guidance

    trainer = Trainer(start.module, material_for(start.spec, dataset), SHORT, CPU, Guidance(loss=Compared()))
    for epoch in (1, 2):
        trainer._train_epoch(epoch, _Deaf())
    assert bool(torch.cat(seen).any()) == mirrored


def test_whatever_decides_the_answers_has_a_cache_of_its_own(small, trained, tmp_path):
    loaded, spec = load_model(trained), start_of(small).spec
    with torch.no_grad():
        loaded.module.fc.bias += 1
    other = write_checkpoint(tmp_path / "other.pth", loaded.spec, loaded.module.state_dict())
    elsewhere = replace(spec, preprocessing=replace(spec.preprocessing, mean=(0.5,) * 3))
    asked = (
        ([trained], spec, CPU),
        ([other], spec, CPU),
        ([trained], elsewhere, CPU),
        ([trained], spec, Settings(CPU.device, "bf16")),
    )
    for count, one in enumerate(asked, 1):
        cached_logits(open_teacher(*one), without_crops(small), SHORT, tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == count


def test_the_cache_refuses_what_never_repeats(small, trained, tmp_path):
    teacher = open_teacher([trained], start_of(small).spec, CPU)
    with pytest.raises(RcompressError, match="random crops"):
        cached_logits(teacher, small, SHORT, tmp_path)
    with pytest.raises(RcompressError, match="--mixup"):
        cached_logits(teacher, without_crops(small), replace(SHORT, mixup=0.2), tmp_path)


def test_distill_by_command(trained, tmp_path, rcompress, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_: str(tmp_path / "cache"))
    write_checkpoint(tmp_path / "t.pth", read_checkpoint(trained).spec, read_checkpoint(trained).state_dict)
    assert rcompress("export", "t.pth").code == 0
    words = ["--student", "resnet20", "--epochs", 3, "-b", 32, "--lr", 0.1, "--ema", 0.9, "--json"]
    made = rcompress("distill", "--teacher", "t.onnx", *words, "--cache-teacher")
    assert made.code == 0, made.err
    answer = json.loads(made.out)
    assert answer["output"] == "resnet20-distilled.pth"
    assert answer["metrics"]["top1_percent"] > 85
    assert answer["metrics"]["teacher_top1_percent"] > 90
    assert "random crops were off" in made.err
    step = read_checkpoint(tmp_path / "resnet20-distilled.pth").spec.lineage[-1]
    assert step.command == "distill"
    assert (step.options["arch"], step.options["image_size"]) == ("resnet20", 32)
    assert step.options["teachers"] == [{"name": "t.onnx", "sha256": read_onnx(tmp_path / "t.onnx").sha256}]
    again = rcompress("distill", "--teacher", "t.pth", "--student", "t.pth", "--epochs", 1, "-o", "t.pth")
    assert (again.code, "is also the input" in again.err) == (1, True)
    for words in (
        ("--loss", "magic"),
        ("--loss", "attention:much"),
        ("--layers", "layer1=layer1"),
        ("--loss", "attention", "--alpha", "0.5"),
    ):
        wrong = rcompress("distill", "--teacher", "t.pth", "--student", "resnet20", *words)
        assert wrong.code == 2, words
